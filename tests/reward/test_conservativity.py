"""Curl of known fields, and of Gaussian pairs with a known rotation added."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.data import laws
from diffreward.diffusion import cosine
from diffreward.reward import Pair
from diffreward.reward.conservativity import (
    conservativity,
    curl_by_level,
    curl_probe,
    unexplainable_by_level,
)
from tests.reward.oracle import BASE, EXPERT, MIXTURE, exact_pair, exact_reward

SCHEDULE = cosine(10)
TURN = jnp.array([[0.0, -1.0], [1.0, 0.0]])


def rotated(pair, strength):
    """Adds ``strength * (-y, x)`` to the relative score, through the expert."""

    def expert(x_t, t):
        return pair.expert(x_t, t) - SCHEDULE.sigma[t] * strength * (TURN @ x_t)

    return pair._replace(expert=expert)


def affine_score(t):
    """S and b of the exact relative score S x + b, in float64."""
    ab = float(SCHEDULE.alpha_bar[t])
    parts = []
    for law in (EXPERT, BASE):
        mean, cov = (np.asarray(x[0], np.float64) for x in (law.means, law.covariances))
        precision = np.linalg.inv(ab * cov + (1 - ab) * np.eye(2))
        parts.append((-precision, np.sqrt(ab) * precision @ mean))
    (s_e, b_e), (s_b, b_b) = parts
    return s_e - s_b, b_e - b_b


def samples(key, num=6):
    return jax.vmap(lambda k: laws.sample(BASE, k))(jax.random.split(key, num))


def report_of(pair, key, x_0, **kwargs):
    run = lambda key, x_0: conservativity(pair, key, x_0, **kwargs)
    return jax.jit(run)(key, x_0)


def test_probe_against_the_whole_jacobian(key):
    """A nonlinear field of four entries; all sign vectors together are exact."""
    weights = jax.random.normal(key, (4, 4))
    field = lambda x: jnp.sin(weights @ x.ravel()).reshape(2, 2) * x[::-1]
    x = jnp.array([[0.3, -1.0], [0.5, 2.0]])
    j = np.asarray(jax.jacfwd(field)(x)).reshape(4, 4)
    for free in (None, jnp.array([[True, False], [True, True]])):
        rows = np.ones(4, bool) if free is None else np.asarray(free).ravel()
        part = j[np.ix_(rows, rows)]
        expected = np.sum((part - part.T) ** 2) / 4, np.sum(part**2)
        one = lambda k, free=free: curl_probe(field, k, x, free=free)
        draws = np.stack(jax.jit(jax.vmap(one))(jax.random.split(key, 4000)), 1)
        error = draws.std(0, ddof=1) / 4000**0.5
        assert (np.abs(draws.mean(0) - expected) < 5 * error + 1e-5).all()


@pytest.mark.parametrize("expert", [EXPERT, MIXTURE], ids=["gaussian", "mixture"])
def test_exact_pairs_have_no_curl(key, expert):
    report = report_of(exact_pair(BASE, expert, SCHEDULE), key, samples(key))
    # At the last level the two laws agree to eight digits; the rest is rounding.
    np.testing.assert_allclose(report.curl[:-1], 0, atol=1e-5)
    assert report.explained is None


@pytest.mark.parametrize("strength", [0.3, -2.0])
def test_known_rotation_has_a_known_share(key, strength):
    """The share of S + w K is 2 w^2 / (|S|^2 + 2 w^2), S symmetric, for Gaussians."""
    pair = exact_pair(BASE, EXPERT, SCHEDULE)
    report = report_of(rotated(pair, strength), key, samples(key), num_probes=200)
    for t in range(10):
        s, _ = affine_score(t)
        expected = 2 * strength**2 / (np.sum(s**2) + 2 * strength**2)
        # 1200 probes; only the cross term of |S v|^2 is random, at most all of it.
        assert report.curl[t] == pytest.approx(expected, rel=5 / 1200**0.5)


FLAT = laws.gaussian(jnp.zeros(2), jnp.diag(jnp.array([1.0, 100.0])))


def flat_samples(key, count):
    draw = lambda k: laws.sample(FLAT, k)
    return jax.vmap(draw)(jax.random.split(key, count))


def test_all_curl_and_yet_a_reward_explains_nearly_all(key):
    """h = K x, covariance C: grad (x' M x / 2) with C M + M C = C K' + K C is nearest.

    For C = diag(a, b) it leaves 4 / (1/a + 1/b) of tr C, which the bound finds.
    """
    pair = rotated(exact_pair(FLAT, FLAT, SCHEDULE), 1.0)
    x_0 = flat_samples(key, 4000)
    best, truth = [], []
    for t in range(10):
        ab = float(SCHEDULE.alpha_bar[t])
        a, b = ab * 1 + 1 - ab, ab * 100 + 1 - ab
        best.append((b - a) / (a + b))
        truth.append(4 * a * b / (a + b) ** 2)
    slopes = jnp.array(best)
    rho = lambda x, t: slopes[t] * x[0] * x[1] * -1
    report = report_of(pair, key, x_0, reward_fn=rho)
    np.testing.assert_allclose(report.curl, 1, atol=1e-3)
    assert report.explained[0] == pytest.approx(0.96, abs=0.01)
    np.testing.assert_allclose(report.explained, 1 - np.array(truth), atol=0.03)
    assert (report.unexplainable <= np.array(truth) + 0.01).all()
    # Two standard errors are taken off; most where the share is small.
    assert (report.unexplainable[1:] > 0.7 * np.array(truth)[1:]).all()


def test_nothing_of_a_gradient_is_unexplainable(key):
    pair = exact_pair(BASE, EXPERT, SCHEDULE)
    run = lambda key, x_0: unexplainable_by_level(pair, key, x_0)
    got = jax.jit(run)(key, samples(key, 2000))[:-1]
    assert (got < 2e-3).all()


def test_the_bound_leaves_pinned_and_masked_entries_out(key):
    pair = rotated(exact_pair(BASE, EXPERT, SCHEDULE), 3.0)
    x_0 = samples(key, 200)
    run = lambda **kw: jax.jit(lambda: unexplainable_by_level(pair, key, x_0, **kw))()
    assert (run()[:-1] > 0.05).all()
    for kwargs in (
        {"mask": jnp.array([True, False])},
        {"pinned": jnp.array([False, True])},
    ):
        np.testing.assert_allclose(run(**kwargs), 0, atol=1e-6)
    with pytest.raises(ValueError, match="needs 4 samples, got 3"):
        unexplainable_by_level(pair, key, x_0[:3])


def test_a_field_of_rotation_alone_is_all_curl(key):
    base = exact_pair(BASE, BASE, SCHEDULE)
    report = report_of(rotated(base, 1.0), key, samples(key))
    np.testing.assert_allclose(report.curl, 1, atol=1e-3)


def test_explained_share_of_a_reward(key):
    pair, x_0 = exact_pair(BASE, EXPERT, SCHEDULE), samples(key)
    rho = exact_reward(BASE, EXPERT, SCHEDULE)
    full = report_of(pair, key, x_0, reward_fn=rho)
    np.testing.assert_allclose(full.explained, 1, atol=1e-3)
    half = report_of(pair, key, x_0, reward_fn=lambda x, t: 0.5 * rho(x, t))
    np.testing.assert_allclose(half.explained, 0.75, atol=1e-3)


def test_the_rotations_power_is_unexplained(key):
    """Moments of S x + b + w K x under the diffused base, w K x being the residual."""
    w, turn = 0.8, np.asarray(TURN, np.float64)
    pair = rotated(exact_pair(BASE, EXPERT, SCHEDULE), w)
    rho = exact_reward(BASE, EXPERT, SCHEDULE)
    got = report_of(pair, key, samples(key, 4000), reward_fn=rho).explained
    for t in range(10):
        ab = float(SCHEDULE.alpha_bar[t])
        mean = np.sqrt(ab) * np.asarray(BASE.means[0], np.float64)
        cov = ab * np.asarray(BASE.covariances[0], np.float64) + (1 - ab) * np.eye(2)
        s, b = affine_score(t)
        power = lambda m, c, mean=mean, cov=cov: (
            np.trace(m @ cov @ m.T) + np.sum((m @ mean + c) ** 2)
        )
        residual, signal = power(w * turn, 0), power(s + w * turn, b)
        assert got[t] == pytest.approx(1 - residual / signal, abs=0.03)


def test_pinned_and_masked_entries_do_not_count(key):
    """Rotation mixes the two entries; with one of them left out, none remains."""
    pair = rotated(exact_pair(BASE, EXPERT, SCHEDULE), 3.0)
    x = jnp.array([0.4, -1.0])
    run = lambda **kw: jax.jit(lambda k, x: curl_by_level(pair, k, x, **kw))(key, x)
    whole, _ = run()
    assert (whole > 1).all()
    for kwargs in (
        {"mask": jnp.array([True, False])},
        {"pinned": jnp.array([False, True])},
    ):
        part, total = run(**kwargs)
        np.testing.assert_allclose(part, 0, atol=1e-6)
        assert (total > 0).all()


def test_equal_models_have_no_share(key):
    eps = lambda x_t, t: x_t
    report = report_of(Pair(eps, eps, SCHEDULE), key, samples(key))
    assert np.isnan(report.curl).all()
