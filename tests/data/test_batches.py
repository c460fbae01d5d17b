"""Rows in batches of one size, whatever their number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.data import map_batches


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_batches_equal_all_rows_at_once(count):
    x = np.arange(2.0 * count, dtype=np.float32).reshape(count, 2)
    keys = jax.random.split(jax.random.key(0), count)
    sizes = []

    def function(x, more):
        sizes.append(len(x))
        noise = jax.vmap(jax.random.uniform)(more["key"])
        return {"sum": jnp.asarray(x).sum(1) + noise, "row": x}

    found = map_batches(function, 4, x, {"key": keys})
    wanted = x.sum(1) + np.asarray(jax.vmap(jax.random.uniform)(keys))
    np.testing.assert_array_equal(found["sum"], wanted)
    np.testing.assert_array_equal(found["row"], x)
    assert set(sizes) == {4}
    assert isinstance(found["sum"], np.ndarray)


def test_the_last_batch_is_filled_with_its_own_rows():
    seen = []
    map_batches(lambda x: seen.append(x.tolist()) or x, 4, np.arange(6))
    assert seen == [[0, 1, 2, 3], [4, 5, 4, 5]]


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="there are no rows"):
        map_batches(lambda x: x, 4, np.zeros((0, 2)))
