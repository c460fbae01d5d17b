"""Guidance of exact models: the steered law is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.diffusion import cosine, sample
from diffreward.steer import guide, guide_by_difference
from tests.reward.oracle import (
    BASE,
    EXPERT,
    UNIT_BASE,
    UNIT_EXPERT,
    eps_fn,
    exact_reward,
)

SCHEDULE = cosine(20)
N = 4000


def draw(eps, key, schedule=SCHEDULE):
    one = lambda k: sample(eps, schedule, k, (2,))
    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(key, N)))


def steered(base, expert, scale, schedule=SCHEDULE, **kwargs):
    rho = exact_reward(base, expert, schedule)
    return guide(eps_fn(base, schedule), rho, schedule, scale, **kwargs)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 2.0])
def test_the_mean_moves_by_scale_and_the_covariance_stays(key, scale):
    schedule = cosine(100)  # the ancestral sampler of fewer steps is too narrow
    x = draw(steered(UNIT_BASE, UNIT_EXPERT, scale, schedule), key, schedule)
    base, expert = UNIT_BASE.means[0], UNIT_EXPERT.means[0]
    expected = base + scale * (expert - base)
    np.testing.assert_allclose(x.mean(0), expected, atol=5 / N**0.5)
    np.testing.assert_allclose(np.cov(x.T), np.eye(2), atol=0.1)


def test_scale_one_is_the_expert(key):
    x = draw(steered(BASE, EXPERT, 1.0), key)
    np.testing.assert_allclose(x, draw(eps_fn(EXPERT, SCHEDULE), key), atol=5e-3)


@pytest.mark.parametrize(
    ("options", "fraction"),
    # By the exact recursion of the means with 20 cosine steps.
    [
        ({"space": "eps"}, 1.00),
        ({"space": "mean"}, 0.72),
        ({"space": "input"}, 0.65),
        ({"space": "input", "t_stop": 5}, 0.57),
    ],
    ids=["eps", "mean", "input", "input-stopped"],
)
def test_share_of_the_shift_reached_in_each_space(key, options, fraction):
    x = draw(steered(UNIT_BASE, UNIT_EXPERT, 1.0, **options), key)
    base, expert = np.asarray(UNIT_BASE.means[0]), np.asarray(UNIT_EXPERT.means[0])
    np.testing.assert_allclose((x.mean(0) - base) / (expert - base), fraction, atol=0.03)


def test_spaces_against_their_definition(key):
    """One ancestral step computed by hand from the posterior mean."""
    x, t = jnp.array([0.3, -0.8]), jnp.int32(8)
    base = eps_fn(UNIT_BASE, SCHEDULE)
    g = jax.grad(exact_reward(UNIT_BASE, UNIT_EXPERT, SCHEDULE))(x, t)
    v, ab = SCHEDULE.posterior_variance[t], SCHEDULE.alpha_bar[t]

    def mean(eps, x):
        x_0 = (x - jnp.sqrt(1 - ab) * eps) / jnp.sqrt(ab)
        return SCHEDULE.posterior_x_0[t] * x_0 + SCHEDULE.posterior_x_t[t] * x

    by_space = {
        "mean": mean(base(x, t), x) + 0.7 * v * g,
        "input": mean(base(x + 0.7 * v * g, t), x + 0.7 * v * g),
    }
    for space, expected in by_space.items():
        eps = steered(UNIT_BASE, UNIT_EXPERT, 0.7, space=space)(x, t)
        np.testing.assert_allclose(mean(eps, x), expected, atol=1e-5)
    raw = steered(UNIT_BASE, UNIT_EXPERT, 0.7, space="mean", scale_by_variance=False)(x, t)
    np.testing.assert_allclose(mean(raw, x), mean(base(x, t), x) + 0.7 * g, atol=1e-5)


@pytest.mark.parametrize("space", ["eps", "mean", "input"])
def test_scale_zero_changes_no_bit(key, space):
    plain = draw(eps_fn(BASE, SCHEDULE), key)
    np.testing.assert_array_equal(draw(steered(BASE, EXPERT, 0.0, space=space), key), plain)


def test_t_stop_masks_exactly_the_levels_below():
    x = jnp.array([0.3, -0.8])
    base = eps_fn(BASE, SCHEDULE)
    stopped, free = (steered(BASE, EXPERT, 1.0, t_stop=s) for s in (5, 0))
    for t in range(20):
        t = jnp.int32(t)
        expected = base(x, t) if t < 5 else free(x, t)
        np.testing.assert_array_equal(stopped(x, t), expected)


def test_pinned_entries_are_not_moved():
    x, t = jnp.array([0.3, -0.8]), jnp.int32(8)
    base = eps_fn(UNIT_BASE, SCHEDULE)
    got = steered(UNIT_BASE, UNIT_EXPERT, 1.0, pinned=jnp.array([True, False]))(x, t)
    assert got[0] == base(x, t)[0]
    assert got[1] != base(x, t)[1]


def test_difference_guidance_interpolates():
    x, t = jnp.array([0.3, -0.8]), jnp.int32(8)
    base, expert = eps_fn(BASE, SCHEDULE), eps_fn(EXPERT, SCHEDULE)
    np.testing.assert_array_equal(guide_by_difference(base, expert, 0.0)(x, t), base(x, t))
    np.testing.assert_allclose(
        guide_by_difference(base, expert, 1.0)(x, t), expert(x, t), rtol=1e-5
    )
    np.testing.assert_allclose(
        guide_by_difference(base, expert, 1.0)(x, t), steered(BASE, EXPERT, 1.0)(x, t),
        rtol=1e-3, atol=1e-4,
    )  # fmt: skip


def test_an_exact_reward_adds_nothing_for_equal_models(key):
    x = draw(steered(BASE, BASE, 3.0), key)
    np.testing.assert_allclose(x, draw(eps_fn(BASE, SCHEDULE), key), atol=1e-4)
