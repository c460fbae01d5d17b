"""Windows of a policy: actions under one observation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward import data as d

ACT, OBS, HORIZON = 2, 3, 4


def episodes(lengths=(6, 2, 9)):
    rows = sum(lengths)
    timeouts = np.zeros(rows, bool)
    timeouts[np.cumsum(lengths) - 1] = True
    rng = np.random.default_rng(0)
    numbers = lambda width: rng.normal(size=(rows, width)).astype(np.float32)
    return d.Episodes.from_arrays(numbers(OBS), numbers(ACT), timeouts=timeouts)


def both(**options):
    e = episodes()
    windows = d.make_windows(
        e, d.fit_gaussian(d.transitions(e)), horizon=HORIZON, **{"pad": True, **options}
    )
    return windows, d.under_first_observation(windows, HORIZON)


def gathered(windows):
    return jax.vmap(lambda i: d.gather(windows, i, HORIZON))(jnp.arange(windows.count))


def test_actions_and_ends_are_kept_and_the_first_observation_stands_in_every_row():
    for options in ({}, {"stride_between_rows": 2}, {"pad": False}, {"balance": "episode"}):
        plain, policy = both(**options)
        (x, valid), (y, shown) = gathered(plain), gathered(policy)
        np.testing.assert_array_equal(shown, valid)
        np.testing.assert_array_equal(y[:, :, :ACT], x[:, :, :ACT])
        first = np.broadcast_to(x[:, :1, ACT:], (len(x), HORIZON, OBS))
        np.testing.assert_array_equal(y[:, :, ACT:], first)
        assert not np.array_equal(x[:, :, ACT:], first)


def test_batches_are_of_the_same_windows():
    plain, policy = both()
    key = jax.random.key(1)
    x, y = (d.draw(w, key, 16, HORIZON) for w in (plain, policy))
    np.testing.assert_array_equal(x["valid"], y["valid"])
    np.testing.assert_array_equal(x["x_0"][:, 0], y["x_0"][:, 0])


def test_the_windows_of_others_are_not_written_to():
    plain, _ = both()
    before = np.array(plain.rows)
    d.under_first_observation(plain, HORIZON)
    np.testing.assert_array_equal(plain.rows, before)


def test_more_rows_than_indices_reach_are_refused_before_they_are_made():
    plain, _ = both()
    many = plain._replace(start=np.broadcast_to(np.int32(0), (2**30,)))
    with pytest.raises(ValueError, match="more rows than 32-bit indices reach"):
        d.under_first_observation(many, HORIZON)
