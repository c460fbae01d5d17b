"""Credits add up, and are those of loops written out in NumPy."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffreward.data import Normaliser
from diffreward.diffusion import cosine
from diffreward.steer.stepwise import (
    clean_reward,
    credit_prefixes,
    credit_windows,
    make_step_reward,
    window_values,
)

SCHEDULE = cosine(8)


def value(x):
    """Not symmetric in steps or entries."""
    place = jnp.arange(1.0, x.size + 1).reshape(x.shape)
    return jnp.sum(jnp.sin(x) * place) + x[0, 0] * x[-1, -1]


def value_np(x):
    place = np.arange(1.0, x.size + 1).reshape(x.shape)
    return np.sum(np.sin(x) * place) + x[0, 0] * x[-1, -1]


def rows(steps, dim=3, seed=0):
    return np.random.default_rng(seed).normal(size=(steps, dim)).astype(np.float32)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 9), st.integers(1, 4))
def test_values_of_all_windows_in_order(steps, window):
    x = rows(steps)
    expected = [value_np(x[i : i + window]) for i in range(steps - window + 1)]
    found = window_values(value, jnp.asarray(x), window)
    assert found.shape == (max(steps - window + 1, 0),)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_last_credits_the_step_that_completes_a_window():
    v = jnp.array([3.0, -1.0, 5.0])
    np.testing.assert_allclose(credit_windows(v, 2), [0, 1.5, -0.5, 2.5])


def test_even_is_the_mean_of_the_windows_a_step_lies_in():
    v, window = rows(6, 1)[:, 0], 4
    expected = np.zeros(9)
    for i in range(6):
        expected[i : i + window] += v[i] / window**2
    found = credit_windows(jnp.asarray(v), window, "even")
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("share", ["last", "even"])
@pytest.mark.parametrize("window", [1, 3, 10])
def test_steps_of_an_episode_add_up_to_its_windows(share, window):
    normaliser = Normaliser(np.array([0.5, -1.0, 0.0]), np.array([2.0, 0.5, 3.0]))
    normaliser = Normaliser(*(x.astype(np.float32) for x in normaliser))
    observations, actions = rows(10, 2), rows(10, 1, seed=1)
    reward = make_step_reward(value, normaliser, window, share)
    found = jax.jit(reward)(observations, actions)
    x = np.concatenate([actions, observations], 1)
    x = (x - normaliser.shift[None]) / normaliser.scale[None]
    total = sum(value_np(x[i : i + window]) for i in range(11 - window)) / window
    assert found.shape == (10,)
    np.testing.assert_allclose(found.sum(), total, rtol=1e-4)


def test_last_does_not_look_ahead():
    normaliser = Normaliser(np.zeros(3, np.float32), np.ones(3, np.float32))
    reward = make_step_reward(value, normaliser, 3)
    observations, actions = rows(8, 2), rows(8, 1, seed=1)
    before = reward(jnp.asarray(observations), jnp.asarray(actions))
    observations[5:] += 1
    after = reward(jnp.asarray(observations), jnp.asarray(actions))
    np.testing.assert_array_equal(before[:5], after[:5])
    assert np.all(np.asarray(before[5:]) != np.asarray(after[5:]))


def test_an_episode_shorter_than_a_window_earns_nothing():
    normaliser = Normaliser(np.zeros(3, np.float32), np.ones(3, np.float32))
    reward = make_step_reward(value, normaliser, 5)
    np.testing.assert_array_equal(reward(jnp.ones((4, 2)), jnp.ones((4, 1))), 0)


def test_prefix_credits_telescope_and_are_causal():
    x, rest = rows(6), np.array([0.1, -0.2, 0.3], np.float32)
    hold = np.array([False, True, True])
    credit, nothing = credit_prefixes(
        value, jnp.asarray(x), jnp.asarray(rest), jnp.asarray(hold)
    )
    known = [np.tile(rest, (6, 1))]
    for k in range(6):
        filled = x.copy()
        for j in range(k + 1, 6):
            filled[j] = np.where(hold, x[k], rest)
        known.append(filled)
    values = np.array([value_np(z) for z in known])
    np.testing.assert_allclose(credit, np.diff(values), atol=2e-4)
    np.testing.assert_allclose(credit.sum() + nothing, value_np(x), rtol=1e-5)
    x[4:] += 1
    later, _ = credit_prefixes(value, jnp.asarray(x), jnp.asarray(rest), jnp.asarray(hold))
    np.testing.assert_array_equal(credit[:4], later[:4])


def test_clean_reward_is_the_mean_over_levels_and_fixed_noises(key):
    rho = lambda x_t, t: jnp.sum(jnp.square(x_t)) * (t + 1).astype(jnp.float32)
    x = rows(4)
    levels = np.array([1, 4])
    ab = np.asarray(SCHEDULE.alpha_bar)[levels]
    bare = clean_reward(rho, SCHEDULE, key, jnp.asarray(levels), num_noises=0)
    expected = np.mean(
        [a * np.square(x).sum() * (t + 1) for a, t in zip(ab, levels, strict=True)]
    )
    np.testing.assert_allclose(bare(jnp.asarray(x)), expected, rtol=1e-5)
    # E |x_t|^2 = ab |x|^2 + (1 - ab) size; the noise average comes near it.
    noisy = clean_reward(rho, SCHEDULE, key, jnp.asarray(levels), num_noises=3000)
    per_level = ab * np.square(x).sum() + (1 - ab) * x.size
    expected = np.mean(per_level * (levels + 1))
    found = noisy(jnp.asarray(x))
    np.testing.assert_allclose(found, expected, rtol=0.03)
    assert float(found) == float(noisy(jnp.asarray(x)))


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="unknown share 'first'; did you mean 'last'"):
        inspect.unwrap(credit_windows)(jnp.zeros(3), 2, "first")
    with pytest.raises(ValueError, match="no window of 3 steps"):
        credit_windows(jnp.zeros(0), 3)
