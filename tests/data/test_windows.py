import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.data import (
    MEMBER_AXES,
    Episodes,
    Normaliser,
    draw,
    fit_limits,
    fits_on_device,
    gather,
    host_batches,
    make_windows,
    normalise,
    stack_windows,
    transitions,
)

LENGTHS = (1, 7, 3, 12)


def make_episodes(lengths=LENGTHS, seed=0):
    rng = np.random.default_rng(seed)
    ends = np.zeros(sum(lengths), bool)
    ends[np.cumsum(lengths) - 1] = True
    observations = rng.normal(size=(len(ends), 3)).astype(np.float32)
    actions = rng.normal(size=(len(ends), 2)).astype(np.float32)
    return Episodes.from_arrays(observations, actions, timeouts=ends)


def windows_by_loop(lengths, rows, zero_action, horizon, pad, stride):
    """Every window as (x_0, valid), by copying one row at a time."""
    result, first = [], 0
    for length in lengths:
        reach = (horizon - 1) * stride
        starts = max(length - 1, 1) if pad else max(length - reach, 1)
        for start in range(starts):
            x_0, valid = [], []
            for k in range(horizon):
                inside = start + k * stride < length
                row = rows[first + (start + k * stride if inside else length - 1)]
                x_0.append(row if inside else np.concatenate([zero_action, row[2:]]))
                valid.append(inside)
            result.append((np.stack(x_0), np.array(valid)))
        first += length
    return result


@pytest.mark.parametrize(
    ("horizon", "pad", "stride"),
    list(itertools.product((1, 4, 8), (False, True), (1, 3))),
)
def test_windows_match_a_plain_loop(horizon, pad, stride):
    episodes = make_episodes()
    normaliser = fit_limits(transitions(episodes))
    windows = make_windows(
        episodes, normaliser, horizon=horizon, pad=pad, stride_between_rows=stride
    )
    rows = normalise(normaliser, transitions(episodes))
    zero = (-normaliser.shift / normaliser.scale)[:2]
    expected = windows_by_loop(LENGTHS, rows, zero, horizon, pad, stride)
    assert windows.count == len(expected)
    fetch = jax.jit(lambda i: gather(windows, i, horizon))
    for i, (x_0, valid) in enumerate(expected):
        got_x_0, got_valid = fetch(jnp.asarray(i))
        np.testing.assert_allclose(got_x_0, x_0, atol=1e-6)
        np.testing.assert_array_equal(got_valid, valid)


def test_without_padding_only_short_episodes_are_padded():
    episodes = make_episodes()
    windows = make_windows(
        episodes, fit_limits(transitions(episodes)), horizon=4, pad=False
    )
    index = jnp.arange(windows.count)
    _, valid = jax.vmap(lambda i: gather(windows, i, 4))(index)
    inside = np.asarray(valid.all(1))
    np.testing.assert_array_equal(windows.start[~inside], [0, 8])


def test_balanced_episodes_weigh_alike_within_a_factor_of_two():
    episodes = make_episodes((5, 9, 40, 26))
    normaliser = fit_limits(transitions(episodes))
    windows = make_windows(episodes, normaliser, horizon=4, pad=False, balance="episode")
    # 2, 6, 37 and 23 starts; the longest episode has 37, so 18, 6, 1 and 1 copies.
    _, starts_per_episode = np.unique(windows.last, return_counts=True)
    np.testing.assert_array_equal(starts_per_episode, [36, 36, 37, 23])
    assert set(windows.start[windows.last == 4]) == {0, 1}


def test_members_of_a_stack_keep_their_own_windows():
    parts = [make_episodes(LENGTHS, 0), make_episodes((9, 2), 1)]
    normaliser = Normaliser(np.zeros(5, np.float32), np.ones(5, np.float32))
    members = [make_windows(p, normaliser, horizon=4, pad=True) for p in parts]
    stack = stack_windows(members)
    fetch = jax.vmap(lambda w, i: gather(w, i, 4), in_axes=(MEMBER_AXES, None))
    for i in range(min(int(m.count) for m in members)):
        x_0, valid = fetch(stack, jnp.asarray(i))
        for j, member in enumerate(members):
            own_x_0, own_valid = gather(member, jnp.asarray(i), 4)
            np.testing.assert_array_equal(x_0[j], own_x_0)
            np.testing.assert_array_equal(valid[j], own_valid)


def test_stack_refuses_different_normalisers():
    episodes = make_episodes()
    shifts = (0.0, 1.0)
    members = [
        make_windows(
            episodes,
            Normaliser(np.full(5, shift, np.float32), np.ones(5, np.float32)),
            horizon=4,
            pad=True,
        )
        for shift in shifts
    ]
    with pytest.raises(ValueError, match="member 1 differs from member 0"):
        stack_windows(members)
    with pytest.raises(ValueError, match="no members"):
        stack_windows([])


def test_bad_horizon():
    episodes = make_episodes()
    with pytest.raises(ValueError, match="horizon 0"):
        make_windows(episodes, fit_limits(transitions(episodes)), horizon=0, pad=True)


def test_device_and_host_draw_identical_batches(key):
    episodes = make_episodes()
    normaliser = fit_limits(transitions(episodes))
    windows = make_windows(episodes, normaliser, horizon=5, pad=True)
    on_device = jax.device_put(windows)
    keys = jax.random.split(key, 3)
    from_host = host_batches(windows, list(keys), 16, 5)
    for batch_key, host in zip(keys, from_host, strict=True):
        device = jax.jit(draw, static_argnums=(2, 3))(on_device, batch_key, 16, 5)
        assert device["x_0"].shape == (16, 5, 5)
        for name in ("x_0", "valid"):
            assert device[name].dtype == host[name].dtype
            np.testing.assert_array_equal(device[name], host[name])


def test_draws_are_uniform_over_the_windows(key):
    episodes = make_episodes()
    # Rows hold their own number, so a window is known by its first entry.
    numbers = np.arange(len(episodes.rewards), dtype=np.float32)
    episodes = episodes._replace(actions=np.stack([numbers] * 2, 1))
    normaliser = Normaliser(np.zeros(5, np.float32), np.ones(5, np.float32))
    windows = make_windows(episodes, normaliser, horizon=4, pad=False)
    first = np.asarray(draw(windows, key, 30_000, 4)["x_0"][:, 0, 0]).astype(int)
    counts = np.bincount(first)
    expected = 30_000 / int(windows.count)
    assert set(np.flatnonzero(counts)) == set(windows.start)
    np.testing.assert_allclose(counts[counts > 0], expected, rtol=0.15)


def test_budget_counts_every_array():
    episodes = make_episodes()
    windows = make_windows(episodes, fit_limits(transitions(episodes)), horizon=4, pad=True)
    count = int(windows.count)
    size = 4 * (sum(LENGTHS) * 5 + 2 * count + 2 + 3)
    assert fits_on_device(windows, size)
    assert not fits_on_device(windows, size - 1)
