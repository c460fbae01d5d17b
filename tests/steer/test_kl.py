"""KL of steered chains against closed forms for Gaussians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.diffusion import Condition, cosine, sample
from diffreward.steer import guide
from diffreward.steer.kl import chain_kl
from tests.reward.oracle import (
    BASE,
    EXPERT,
    UNIT_BASE,
    UNIT_EXPERT,
    eps_fn,
    exact_reward,
)


def chains(base, guided, schedule, key, num):
    one = lambda k: chain_kl(base, guided, schedule, k, (2,))
    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(key, num)), np.float64)


def affine_eps(law, schedule, t):
    """eps(x) = matrix x + offset of a diffused Gaussian, in float64."""
    ab = float(schedule.alpha_bar[t])
    mean = np.asarray(law.means[0], np.float64)
    cov = np.asarray(law.covariances[0], np.float64)
    matrix = np.sqrt(1 - ab) * np.linalg.inv(ab * cov + (1 - ab) * np.eye(2))
    return matrix, -matrix @ (np.sqrt(ab) * mean)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_unit_gaussians_at_any_scale(key, scale):
    """x0hat of N(m, I) is m (1 - ab) + ..., so the gap of means is the same everywhere."""
    schedule = cosine(20)
    base = eps_fn(UNIT_BASE, schedule)
    rho = exact_reward(UNIT_BASE, UNIT_EXPERT, schedule)
    got = chains(base, guide(base, rho, schedule, scale), schedule, key, 3)
    delta = np.asarray(UNIT_EXPERT.means[0] - UNIT_BASE.means[0])
    c = np.asarray(schedule.posterior_x_0 * (1 - schedule.alpha_bar), np.float64)
    v = np.asarray(schedule.posterior_variance, np.float64)
    expected = (scale * c[1:]) ** 2 * (delta @ delta) / (2 * v[1:])
    np.testing.assert_allclose(got[:, 1:], np.tile(expected, (3, 1)), rtol=2e-3)
    np.testing.assert_array_equal(got[:, 0], 0)


def test_gaussians_by_the_recursion_of_mean_and_covariance(key):
    schedule = cosine(12)
    got = chains(eps_fn(BASE, schedule), eps_fn(EXPERT, schedule), schedule, key, 4000)
    mean, cov, expected = np.zeros(2), np.eye(2), np.zeros(12)
    for t in range(11, 0, -1):
        c0, ct, v, s, a = (
            float(x[t])
            for x in (
                schedule.posterior_x_0,
                schedule.posterior_x_t,
                schedule.posterior_variance,
                schedule.sigma,
                schedule.sqrt_alpha_bar,
            )
        )
        (m_e, b_e), (m_b, b_b) = (affine_eps(x, schedule, t) for x in (EXPERT, BASE))
        gap, shift = c0 * s / a * (m_b - m_e), c0 * s / a * (b_b - b_e)
        at_mean = gap @ mean + shift
        expected[t] = (np.trace(gap @ cov @ gap.T) + at_mean @ at_mean) / (2 * v)
        step = c0 / a * (np.eye(2) - s * m_e) + ct * np.eye(2)
        mean = step @ mean - c0 * s / a * b_e
        cov = step @ cov @ step.T + v * np.eye(2)
    error = got.std(0, ddof=1) / 4000**0.5
    assert (np.abs(got.mean(0) - expected) <= 5 * error + 1e-4 * expected).all()
    assert error.sum() < 0.05 * expected.sum()


def test_many_levels_give_the_divergence_of_the_laws(key):
    """Both data laws are diffused by one kernel, so the path adds nothing to their KL."""
    schedule = cosine(300)
    got = chains(eps_fn(BASE, schedule), eps_fn(EXPERT, schedule), schedule, key, 400)
    m, n = (np.asarray(x.means[0], np.float64) for x in (EXPERT, BASE))
    p, q = (np.asarray(x.covariances[0], np.float64) for x in (EXPERT, BASE))
    inverse = np.linalg.inv(q)
    log_det = np.log(np.linalg.det(q) / np.linalg.det(p))
    kl = (np.trace(inverse @ p) + (m - n) @ inverse @ (m - n) - 2 + log_det) / 2
    assert got.sum(1).mean() == pytest.approx(kl, rel=0.03)


def test_no_guidance_no_divergence(key):
    schedule = cosine(20)
    base = eps_fn(BASE, schedule)
    guided = guide(base, exact_reward(BASE, EXPERT, schedule), schedule, 0.0)
    np.testing.assert_array_equal(chains(base, guided, schedule, key, 2), 0.0)


def test_pinned_entries_do_not_count(key):
    schedule = cosine(20)
    base, expert = (eps_fn(x, schedule) for x in (UNIT_BASE, UNIT_EXPERT))
    free = chain_kl(base, expert, schedule, key, (2,)).sum()
    parts = [
        chain_kl(
            base, expert, schedule, key, (2,), Condition(jnp.array(p), jnp.ones(2))
        ).sum()
        for p in ([True, False], [False, True], [True, True])
    ]
    assert parts[0] + parts[1] == pytest.approx(float(free), rel=1e-4)
    assert parts[2] == 0


def test_it_follows_the_chain_that_the_sampler_draws(key):
    """A difference of predictions that only the guided chain's states can tell."""
    schedule = cosine(10)
    guided = eps_fn(EXPERT, schedule)
    seen = []

    def base(x_t, t):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), x_t, ordered=True)
        return guided(x_t, t)

    chain_kl(base, guided, schedule, key, (2,))
    jax.effects_barrier()
    last = schedule.posterior_x_0[0]  # 1: the last step returns x0hat
    eps = guided(jnp.asarray(seen[-1]), jnp.int32(0))
    x_0 = (seen[-1] - schedule.sigma[0] * eps) / schedule.sqrt_alpha_bar[0] * last
    np.testing.assert_allclose(x_0, sample(guided, schedule, key, (2,)), atol=1e-4)
