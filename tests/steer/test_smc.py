"""Particles against the exact law of the discretised, tilted Gaussian chain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.data import laws
from diffreward.diffusion import Condition, cosine
from diffreward.steer import guide
from diffreward.steer.smc import (
    effective_sample_size,
    smc_sample,
    systematic_resample,
)
from tests.reward.oracle import eps_fn, exact_reward

SCHEDULE = cosine(12)
MEANS = np.array([[0.6, -0.4], [-0.3, 0.3]])
COVS = np.array([[[0.8, 0.3], [0.3, 0.5]], [[0.6, 0.1], [0.1, 0.6]]])
BASE, EXPERT = (
    laws.gaussian(jnp.array(m, jnp.float32), jnp.array(c, jnp.float32))
    for m, c in zip(MEANS, COVS, strict=True)
)
RHO = exact_reward(BASE, EXPERT, SCHEDULE)
BASE_EPS = eps_fn(BASE, SCHEDULE)


def tilted(scale):
    """Mean and covariance of the clean samples, and log Z, by linear algebra."""
    s = {k: np.asarray(v, np.float64) for k, v in SCHEDULE._asdict().items()}
    eye = np.eye(2)

    def x_0_hat(t):
        ab = s["alpha_bar"][t]
        gain = np.sqrt(ab) * COVS[0] @ np.linalg.inv(ab * COVS[0] + (1 - ab) * eye)
        return gain, MEANS[0] - gain @ (np.sqrt(ab) * MEANS[0])

    mean, cov = np.zeros(2), eye
    for t in range(SCHEDULE.num_steps - 1, 0, -1):
        gain, shift = x_0_hat(t)
        a = s["posterior_x_0"][t] * gain + s["posterior_x_t"][t] * eye
        mean = a @ mean + s["posterior_x_0"][t] * shift
        cov = a @ cov @ a.T + s["posterior_variance"][t] * eye
    # rho at level 0 as -x'Px/2 + q'x + c; the tilt adds it to the chain's own exponent.
    ab = s["alpha_bar"][0]
    terms = []
    for m, c in zip(MEANS, COVS, strict=True):
        total, centre = ab * c + (1 - ab) * eye, np.sqrt(ab) * m
        inverse = np.linalg.inv(total)
        terms.append(
            (
                inverse,
                inverse @ centre,
                -centre @ inverse @ centre / 2 - np.linalg.slogdet(total)[1] / 2,
            )
        )
    p, q, c = (scale * (e - b) for b, e in zip(*terms, strict=True))
    inverse = np.linalg.inv(cov)
    new_cov = np.linalg.inv(inverse + p)
    new_mean = new_cov @ (inverse @ mean + q)
    log_z = (
        c
        + (np.linalg.slogdet(new_cov)[1] - np.linalg.slogdet(cov)[1]) / 2
        + (new_mean @ np.linalg.inv(new_cov) @ new_mean - mean @ inverse @ mean) / 2
    )
    gain, shift = x_0_hat(0)
    return gain @ new_mean + shift, gain @ new_cov @ gain.T, log_z


def run(key, num_particles=4000, **options):
    return smc_sample(BASE_EPS, RHO, SCHEDULE, key, (2,), num_particles, **options)


@pytest.fixture(scope="module")
def small():
    """500 particles, compiled once; scale and threshold are arguments of ``run``."""
    options = {"half": {}, "never": {"threshold": 0.0}}
    return {
        name: jax.jit(lambda k, s, o=o: run(k, 500, scale=s, **o))
        for name, o in options.items()
    }


@pytest.mark.parametrize(("scale", "guided"), [(1.5, False), (1.5, True)])
def test_particles_have_the_tilted_law(key, scale, guided):
    options = {"scale": scale}
    if guided:
        options["proposal"] = guide(BASE_EPS, RHO, SCHEDULE, 0.7 * scale)
    out = jax.jit(lambda k: run(k, **options))(key)
    mean, cov, log_z = tilted(scale)
    w = np.exp(np.asarray(out.log_weights, np.float64))
    x = np.asarray(out.x_0)
    found = w @ x
    error = 5 / np.asarray(out.ess).min() ** 0.5
    np.testing.assert_allclose(w.sum(), 1, rtol=1e-4)
    np.testing.assert_allclose(found, mean, atol=error)
    np.testing.assert_allclose((w[:, None] * (x - found)).T @ (x - found), cov, atol=error)
    np.testing.assert_allclose(out.log_normaliser, log_z, atol=error)


def test_the_last_step_is_the_bases_and_leaves_a_narrow_expert_wide(key):
    """Variances 1 and 0.004 where level 0 has noise 0.0205: the law at level 0 is right."""
    schedule = cosine(12)
    wide, narrow = (laws.gaussian(jnp.zeros(2), v * jnp.eye(2)) for v in (1.0, 0.004))
    base = eps_fn(wide, schedule)
    rho = exact_reward(wide, narrow, schedule)
    proposal = guide(base, rho, schedule, 1.0)
    draw = lambda k: smc_sample(base, rho, schedule, k, (2,), 4000, proposal=proposal)
    out = jax.jit(draw)(key)
    w = np.exp(np.asarray(out.log_weights, np.float64))
    std = np.sqrt((w @ np.square(np.asarray(out.x_0))).mean())
    ab = float(schedule.alpha_bar[0])
    # The base of unit variance answers x_0 = sqrt(ab) x; the expert's std is 0.063.
    assert std == pytest.approx(np.sqrt(ab * (ab * 0.004 + 1 - ab)), rel=0.08)
    assert std > 2 * 0.004**0.5


def test_scale_one_of_a_long_chain_is_the_expert(key):
    """With few levels the ancestral sampler itself is too narrow."""
    schedule = cosine(300)
    rho, base = exact_reward(BASE, EXPERT, schedule), eps_fn(BASE, schedule)
    out = jax.jit(lambda k: smc_sample(base, rho, schedule, k, (2,), 2000))(key)
    w = np.exp(np.asarray(out.log_weights, np.float64))
    x = np.asarray(out.x_0)
    mean = w @ x
    error = 5 / np.asarray(out.ess).min() ** 0.5
    np.testing.assert_allclose(mean, MEANS[1], atol=error)
    np.testing.assert_allclose(
        (w[:, None] * (x - mean)).T @ (x - mean), COVS[1], atol=error
    )
    np.testing.assert_allclose(out.log_normaliser, 0, atol=error)
    assert np.linalg.norm(MEANS[0] - MEANS[1]) > 4 * error


@pytest.mark.parametrize(("threshold", "scale"), [(0.0, 0.5), (0.5, 1.0), (1.0, 1.0)])
def test_the_normaliser_is_unbiased(key, threshold, scale):
    many = jax.jit(
        jax.vmap(lambda k: run(k, 24, scale=scale, threshold=threshold).log_normaliser)
    )
    z = np.exp(np.asarray(many(jax.random.split(key, 1500)), np.float64))
    expected = np.exp(tilted(scale)[2])
    error = 4 * z.std() / len(z) ** 0.5
    assert error < 0.1 * expected
    assert abs(z.mean() - expected) < error


def test_threshold_zero_is_importance_sampling(key, small):
    out = small["never"](key, jnp.float32(1))
    assert not out.resampled.any()
    np.testing.assert_allclose(out.log_weights, jax.nn.log_softmax(out.value), atol=1e-3)
    mean = jax.scipy.special.logsumexp(out.value) - jnp.log(500.0)
    np.testing.assert_allclose(out.log_normaliser, mean, atol=1e-3)


def test_resampling_happens_exactly_below_the_threshold(key, small):
    out = small["half"](key, jnp.float32(1.5))
    np.testing.assert_array_equal(out.resampled, out.ess < 250)
    assert out.resampled.any()
    assert not out.resampled.all()


def test_effective_sample_size_of_known_weights():
    np.testing.assert_allclose(effective_sample_size(jnp.full(7, -300.0)), 7, rtol=1e-4)
    one = jnp.array([0.0, -1e3, -1e3])
    np.testing.assert_allclose(effective_sample_size(one), 1, rtol=1e-5)
    w = np.array([0.5, 0.3, 0.2])
    np.testing.assert_allclose(
        effective_sample_size(jnp.log(jnp.asarray(w, jnp.float32))),
        1 / np.square(w).sum(),
        rtol=1e-5,
    )


def test_systematic_counts_are_the_expected_ones_rounded(key):
    w = np.random.default_rng(0).dirichlet(np.full(50, 0.3))
    log_w = jnp.asarray(np.log(w + 1e-30), jnp.float32)
    pick = jax.jit(lambda k: jnp.bincount(systematic_resample(k, log_w), length=50))
    counts = np.stack([np.asarray(pick(k)) for k in jax.random.split(key, 200)])
    assert np.all(np.abs(counts - 50 * w) < 1 + 1e-3)
    np.testing.assert_allclose(counts.mean(0), 50 * w, atol=4 * 0.5 / 200**0.5)


def test_pinned_entries_stay(key):
    condition = Condition(jnp.array([True, False]), jnp.array([0.25, 0.0]))
    proposal = guide(BASE_EPS, RHO, SCHEDULE, 1.0)
    steer = lambda k: run(k, 64, condition=condition, proposal=proposal)
    out = jax.jit(steer)(key)
    np.testing.assert_array_equal(out.x_0[:, 0], 0.25)
    assert np.isfinite(np.asarray(out.log_weights)).all()


@pytest.mark.parametrize("options", [{"threshold": 1.5}, {"num_particles": 0}])
def test_bad_settings_are_named(key, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}="):
        run(key, **options)
