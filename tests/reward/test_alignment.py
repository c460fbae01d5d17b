import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.data import laws
from diffreward.diffusion import cosine, from_eps
from diffreward.reward import (
    OBJECTIVES,
    PAPER,
    SCORE,
    Pair,
    align_means,
    align_scores,
    alignment_loss,
    posterior_means,
    relative_score,
)
from tests.reference import alignment, cosine_alpha_bar, gaussian_score, posterior
from tests.reward.oracle import BASE, EXPERT, exact_pair, exact_reward

SCHEDULE = cosine(20)
PAIR = exact_pair(BASE, EXPERT, SCHEDULE)
X = jnp.array([0.4, -0.7])


def toy_reward(params, x, t):
    return jnp.sin(x @ params["w"]) + params["b"] * jnp.sum(x**3) * (
        1.0 + t.astype(jnp.float32)
    )


PARAMS = {"w": jnp.array([0.7, -1.1]), "b": jnp.float32(0.2)}


@pytest.mark.parametrize("t", [0, 5, 19])
def test_relative_score_of_gaussians(t):
    ab = cosine_alpha_bar(20)[t]
    scores = [
        gaussian_score(np.asarray(m.means[0]), np.asarray(m.covariances[0]), ab, X)
        for m in (BASE, EXPERT)
    ]
    got = relative_score(PAIR, X, jnp.int32(t))
    np.testing.assert_allclose(got, scores[1] - scores[0], rtol=1e-3, atol=1e-5)


def test_loss_against_finite_differences():
    x = np.array([[0.3, -0.4], [0.9, 0.1]])
    target, mask = np.array([[1.0, 2.0], [-1.0, 0.5]]), np.array([[1, 0], [1, 1]])
    reward = lambda v: np.sin(v.sum()) + (v**3).sum()
    expected = alignment(reward, x, target, 0.7, mask)
    loss, metrics = alignment_loss(
        lambda v, t: jnp.sin(v.sum()) + (v**3).sum(),
        jnp.asarray(x, jnp.float32),
        jnp.int32(0),
        jnp.asarray(target, jnp.float32),
        weight=0.7,
        mask=jnp.asarray(mask, bool),
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    np.testing.assert_allclose(metrics["residual"], expected * 3, rtol=1e-4)
    np.testing.assert_allclose(metrics["signal"], 0.7 * (1 + 1 + 0.25), rtol=1e-5)


def test_parameter_gradient_against_finite_differences(key):
    """The second derivative of the reward, along a random direction."""

    def loss(params):
        target = jnp.array([0.3, -0.8])
        rho = lambda x, t: toy_reward(params, x, t)
        return alignment_loss(rho, X, jnp.int32(1), target)[0]

    w_key, b_key = jax.random.split(key)
    direction = {"w": jax.random.normal(w_key, (2,)), "b": jax.random.normal(b_key)}
    moved = lambda h: jax.tree.map(lambda p, d: p + h * d, PARAMS, direction)
    h = 1e-2
    expected = (loss(moved(h)) - loss(moved(-h))) / (2 * h)
    gradient = jax.grad(loss)(PARAMS)
    got = sum(jnp.vdot(gradient[k], direction[k]) for k in PARAMS)
    np.testing.assert_allclose(got, expected, rtol=1e-2)


def test_exact_reward_has_no_loss_in_score_units():
    rho = exact_reward(BASE, EXPERT, SCHEDULE)
    for t in range(20):
        part = align_scores(PAIR, X, jnp.int32(t))
        loss, metrics = alignment_loss(
            rho, part.point, jnp.int32(t), part.target, weight=part.weight
        )
        assert loss < 1e-6 * (1 + metrics["signal"])
        a = cosine_alpha_bar(20)[t]
        np.testing.assert_allclose(part.weight, (1 - a) / a, rtol=1e-4)


def test_paper_preset_is_the_published_target():
    alpha_bar = cosine_alpha_bar(20)
    for t in (0, 4, 19):
        level = jnp.int32(t)
        part = align_means(PAIR, X, level)
        x_0 = [
            np.asarray(from_eps(SCHEDULE, "x_0", X, level, f(X, level)))
            for f in (PAIR.base, PAIR.expert)
        ]
        means = [posterior(alpha_bar, t, x, np.asarray(X))[0] for x in x_0]
        np.testing.assert_allclose(part.point, means[0], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(part.target, means[1] - means[0], rtol=1e-3, atol=2e-4)
        assert part.weight == 1
    # At t = 0 the point is the base's clean sample, not x_t.
    base_mean, _ = posterior_means(PAIR, X, jnp.int32(0))
    assert not np.allclose(base_mean, X, atol=1e-3)


def test_mean_difference_is_the_scaled_score_difference():
    """mu_E - mu_B = beta / sqrt(alpha) (s_E - s_B), exactly."""
    for t in range(20):
        base, expert = posterior_means(PAIR, X, jnp.int32(t))
        factor = SCHEDULE.beta[t] / jnp.sqrt(1 - SCHEDULE.beta[t])
        expected = factor * relative_score(PAIR, X, jnp.int32(t))
        np.testing.assert_allclose(expert - base, expected, rtol=5e-3, atol=2e-4)


def test_swapping_the_pair_flips_the_sign():
    swapped = Pair(PAIR.expert, PAIR.base, SCHEDULE)
    for objective in OBJECTIVES.values():
        a = objective.align(PAIR, X, jnp.int32(3)).target
        b = objective.align(swapped, X, jnp.int32(3)).target
        np.testing.assert_allclose(a, -b, rtol=1e-5)


def test_constants_cost_nothing_and_frozen_models_get_no_gradient():
    def loss(shift, offset):
        pair = Pair(lambda x, t: PAIR.base(x, t) + shift, PAIR.expert, SCHEDULE)
        part = align_scores(pair, X, jnp.int32(3))
        rho = lambda x, t: toy_reward(PARAMS, x, t) + offset
        return alignment_loss(rho, part.point, jnp.int32(3), part.target)[0]

    for_shift, for_offset = jax.grad(loss, (0, 1))(jnp.float32(0.1), jnp.float32(5.0))
    assert for_shift == 0
    assert for_offset == 0
    assert loss(0.0, 0.0) == loss(0.0, 3.0)


@pytest.mark.parametrize(("variance", "power"), [(1.0, 2), (1e-9, -2)])
def test_the_weighted_score_fades_for_smooth_laws_alone(variance, power):
    """Weight times |h|^2 of unlike means: like sigma^2; for two points 1 / sigma^2."""
    schedule = cosine(1000)
    means = jnp.array([1.0, -2.0]), jnp.array([-1.5, 0.5])
    pair = exact_pair(*(laws.gaussian(m, variance * jnp.eye(2)) for m in means), schedule)
    levels = jnp.array([2, 10])
    part = jax.vmap(lambda t: align_scores(pair, X, t))(levels)
    weighted = part.weight * jnp.square(part.target).sum(-1)
    grown = jnp.log(weighted[1] / weighted[0])
    grown /= jnp.log(schedule.sigma[10] / schedule.sigma[2])
    assert grown == pytest.approx(power, abs=0.05)


def test_value_scale_turns_clean_differences_into_scores():
    """grad f = x0hat_E - x0hat_B makes grad (scale f) the relative score."""
    for t in (0, 7, 15):
        t = jnp.int32(t)
        x_0 = [from_eps(SCHEDULE, "x_0", X, t, f(X, t)) for f in PAIR[:2]]
        expected = SCORE.scale(SCHEDULE, t) * (x_0[1] - x_0[0])
        np.testing.assert_allclose(
            relative_score(PAIR, X, t), expected, rtol=2e-3, atol=1e-4
        )
    assert PAPER.scale(SCHEDULE, jnp.int32(3)) == 1
