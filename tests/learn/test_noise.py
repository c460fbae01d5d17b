"""Batches and their noises, against what they should be by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.learn import draw_noise, equal_parts, noise, noise_at, rows
from tests.learn.toy import PINNED, SCHEDULE, SHAPE, normals


def test_levels_are_stratified(key):
    """A batch of 24 over 12 levels has every level twice, but for the ends of a shift."""
    for i in range(5):
        t, _ = draw_noise(SCHEDULE, jax.random.fold_in(key, i), jnp.zeros((24, *SHAPE)))
        np.testing.assert_array_equal(np.bincount(t, minlength=12), np.full(12, 2))


def test_levels_are_not_tied_to_the_order_of_a_batch(key):
    """Base first, expert second: both halves see all levels, in no order."""
    keys = jax.random.split(key, 200)
    t = jax.vmap(lambda k: draw_noise(SCHEDULE, k, jnp.zeros((24, 1)))[0])(keys)
    means = np.asarray(t, float).mean(0)
    # Of 200 uniform levels; a sorted batch would go from 0 to 11.
    np.testing.assert_allclose(means, 5.5, atol=5 * np.sqrt(143 / 12 / 200))
    assert (np.diff(np.asarray(t), axis=1) < 0).mean() > 0.4


def test_noised_batches_are_the_closed_form_and_pinned_entries_clean(key):
    x_0 = normals(1, 16, *SHAPE)
    x_t, t, eps = noise(SCHEDULE, key, x_0, PINNED)
    again, eps_again = draw_noise(SCHEDULE, key, x_0)
    np.testing.assert_array_equal(t, again)
    np.testing.assert_array_equal(eps, eps_again)
    alpha_bar = np.asarray(SCHEDULE.alpha_bar)[t][:, None, None]
    wanted = np.sqrt(alpha_bar) * x_0 + np.sqrt(1 - alpha_bar) * eps
    wanted = np.where(PINNED, x_0, wanted)
    np.testing.assert_allclose(x_t, wanted, rtol=1e-5, atol=1e-6)
    free = noise_at(SCHEDULE, x_0, t, eps)
    np.testing.assert_array_equal(free[:, ~PINNED], x_t[:, ~PINNED])
    assert not np.any(free[:, PINNED] == x_t[:, PINNED])
    assert abs(float(eps.mean())) < 5 / np.sqrt(eps.size)
    assert float(eps.std()) == pytest.approx(1, abs=0.3)


def test_equal_parts_are_one_set_after_the_other(key):
    asked = []

    def draw(name, key, count):
        asked.append((name, jax.random.key_data(key).tolist(), count))
        return {"x": jnp.full((count, 1), ord(name))}

    batch = equal_parts(draw, ("a", "b", "c"), key, 11)
    np.testing.assert_array_equal(batch["x"][:, 0], [ord(c) for c in "aaabbbccc"])
    names, keys, counts = zip(*asked, strict=True)
    assert (names, counts) == (("a", "b", "c"), (3, 3, 3))
    assert len({tuple(k) for k in keys}) == 3


def test_rows_of_a_tree_belong_together(key):
    data = {"x": jnp.arange(10.0)[:, None], "y": 2 * jnp.arange(10.0)}
    found = rows(data, key, 64)
    np.testing.assert_array_equal(found["y"], 2 * found["x"][:, 0])
    assert len(np.unique(found["y"])) > 8
