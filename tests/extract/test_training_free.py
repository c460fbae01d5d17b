"""Extractors that train nothing, on exact models: theory sets the tolerance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.diffusion import cosine
from diffreward.extract import (
    EXTRACTORS,
    WEIGHTINGS,
    Comparison,
    OdeLogRatio,
    accuracy,
    exact_pair,
    fit,
    loss_gap,
    potential,
)
from diffreward.reward import log_ratio, relative_score
from tests.extract.conftest import SCHEDULE

# Largest gradient and value errors. Gauss-Legendre is exact for affine scores and spectral
# else; Heun and the trapezoid are of second order in 1 / 24 levels; Ito's paths and
# noises of mixtures add Monte Carlo error; the bound is a one-sided Riemann sum.
CASES = {
    ("line_integral", "gaussians"): (1e-3, 1e-3),
    ("line_integral", "mixtures"): (1e-3, 1e-3),
    ("ode_log_ratio", "gaussians"): (5e-3, 5e-3),
    ("ode_log_ratio", "trajectories"): (1e-2, 1e-2),
    ("ito_log_ratio", "gaussians"): (0.08, 0.1),
    ("loss_gap:integral", "gaussians"): (0.03, 0.01),
    ("loss_gap:integral", "tilted_linear"): (0.15, 0.1),
    ("loss_gap:elbo", "gaussians"): (0.5, 0.4),
}


def extracted(name, source, **settings):
    extractor, _, weighting = name.partition(":")
    settings |= {"weighting": weighting} if weighting else {}
    return fit(extractor, source, EXTRACTORS[extractor].settings(**settings))


@pytest.mark.parametrize(("name", "pair"), CASES)
def test_exact_models_give_the_known_reward(known, name, pair):
    case, (gradient, value) = known(pair), CASES[name, pair]
    reward = extracted(name, case.source)
    right, swapped = case.judge(reward.reward_fn)
    assert right.gradient_error < gradient
    assert right.value_error < value
    assert right.rank_correlation > 0.98
    assert swapped.gradient_error > max(gradient, 1.9)
    assert swapped.value_error > max(value, 1.9)
    assert swapped.rank_correlation < -0.98


@pytest.mark.parametrize(
    "name", ["ode_log_ratio", "ito_log_ratio", "line_integral", "loss_gap:dpo"]
)
def test_swapping_the_models_changes_the_sign_alone(known, name):
    source = known("mixtures").source
    pair = source.pair
    other = source._replace(pair=pair._replace(base=pair.expert, expert=pair.base))
    x, t = jnp.array([0.4, -0.7]), jnp.int32(9)
    few = {} if name in ("ode_log_ratio", "line_integral") else {"noises": 2}
    values = [extracted(name, s, **few).reward_fn(x, t) for s in (source, other)]
    assert abs(values[0]) > 0.01
    np.testing.assert_allclose(values[0], -values[1], rtol=1e-5)


def gaps(case, x, t, count=2):
    pair = case.source.pair
    eps = loss_gap.mirrored(jax.random.key(0), count, SCHEDULE.num_steps, x.shape)
    return np.asarray(loss_gap.level_gaps(pair, x, t, eps, None, per_entry=False))


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_weights_against_their_formulas(known, name):
    """Every weighting rewritten in NumPy from the gaps of the levels above t."""
    case, t, x = known("gaussians"), 5, jnp.array([0.4, -0.7])
    reward = extracted(f"loss_gap:{name}", case.source, noises=2, beta=3.0)
    above = gaps(case, x, jnp.int32(t))[t + 1 :].astype(np.float64)
    alpha_bar = np.asarray(SCHEDULE.alpha_bar, np.float64)
    a2 = alpha_bar[t + 1 :] / alpha_bar[t]
    snr = a2 / (1 - a2)
    density = above / (a2 * (1 - a2))
    last = jnp.int32(SCHEDULE.num_steps - 1)
    tail = float(potential.line_integral(case.source.pair, x, last, None))
    wanted = {
        "uniform": above.mean(),
        "dpo": 3 * above.sum(),
        "drail": above.mean() / 2,
        "membership": above[0] / 2,
        "elbo": above[0] / 2 + np.sum(-np.diff(snr) * above[1:] / snr[1:]) / 2 + tail,
        "integral": (np.trapezoid(density, -a2) + (1 - a2[0]) * density[0]) / 2 + tail,
    }
    np.testing.assert_allclose(reward.reward_fn(x, jnp.int32(t)), wanted[name], rtol=1e-3)


def test_elbo_agrees_with_the_log_ratio_of_clean_samples(known):
    """Another route: at level 0 of a fine schedule x_t is as good as clean."""
    schedule = cosine(200)
    case = known("gaussians")
    pair = exact_pair(case.pair, schedule)
    source = case.source._replace(pair=pair)
    reward = extracted("loss_gap:elbo", source, noises=32)
    x = jnp.array([0.4, -0.7])
    keys = jax.random.split(jax.random.key(3), 64)
    clean = jax.vmap(lambda k: log_ratio(pair, k, x, num_noises=4, weighting="elbo").sum())(
        keys
    )
    error = np.std(clean) / np.sqrt(len(clean))
    value = float(reward.reward_fn(x, jnp.int32(0)))
    assert abs(value - clean.mean()) < 4 * error + 0.02 * abs(clean.mean())


def test_hutchinson_is_unbiased(known):
    """For Gaussians the divergence is no function of x: probes shift the value alone."""
    case = known("gaussians")
    x, t = jnp.array([0.4, -0.7]), jnp.int32(3)
    exact = fit("ode_log_ratio", case.source).reward_fn(x, t)
    probed = [
        fit("ode_log_ratio", case.source, OdeLogRatio(probes=256), seed=s).reward_fn(x, t)
        for s in range(4)
    ]
    assert np.std(probed) > 1e-4
    np.testing.assert_allclose(np.mean(probed), exact, atol=4 * np.std(probed) + 1e-3)


@pytest.mark.parametrize(
    "name", ["ode_log_ratio", "ito_log_ratio", "line_integral", "loss_gap:integral"]
)
def test_pinned_entries_are_conditions(known, name):
    """With entry 1 pinned at y the models are p(x | y); theirs is the reward found.

    Conditional models of a Gaussian with entry 1 shown clean, written by hand.
    """
    case = known("gaussians")
    y = 0.3

    def conditional(law):
        mean, cov = np.asarray(law.means[0]), np.asarray(law.covariances[0])
        m = mean[0] + cov[0, 1] / cov[1, 1] * (y - mean[1])
        return m, cov[0, 0] - cov[0, 1] ** 2 / cov[1, 1]

    moments = [conditional(law) for law in (case.pair.base, case.pair.expert)]

    def model(m, v):
        def eps_fn(x, t):
            ab = SCHEDULE.alpha_bar[t]
            first = SCHEDULE.sigma[t] * (x[0] - SCHEDULE.sqrt_alpha_bar[t] * m)
            return jnp.stack([first / (ab * v + 1 - ab), 7.0 + 0 * x[1]])

        return eps_fn

    pair = case.source.pair._replace(base=model(*moments[0]), expert=model(*moments[1]))
    source = case.source._replace(pair=pair, pinned=jnp.array([False, True]))
    reward = extracted(name, source)
    for t in (2, 12):
        x, t = jnp.array([0.2, y]), jnp.int32(t)
        found = jax.grad(reward.reward_fn)(x, t)[0]
        wanted = relative_score(pair, x, t)[0]
        np.testing.assert_allclose(found, wanted, rtol=0.06)


def test_unknown_weightings_and_counts_are_refused(known):
    source = known("gaussians").source
    with pytest.raises(ValueError, match="unknown weighting 'elb'; did you mean 'elbo'"):
        extracted("loss_gap:elb", source)
    with pytest.raises(ValueError, match="loss_gap needs noises >= 1, got 0"):
        extracted("loss_gap", source, noises=0)
    with pytest.raises(ValueError, match="ito_log_ratio needs noises >= 1"):
        extracted("ito_log_ratio", source, noises=0)
    with pytest.raises(ValueError, match="probes >= 0, got -1"):
        extracted("ode_log_ratio", source, probes=-1)


def test_agreement_of_a_known_error():
    """A gradient 10 % too long is 10 % off, and a free offset per level costs nothing."""
    rng = np.random.default_rng(0)
    score, truth = rng.normal(size=(64, 5, 2)), rng.normal(size=(64, 5))
    found = Comparison(1.1 * score, score, truth + np.arange(5.0), truth)
    result = accuracy(found)
    np.testing.assert_allclose(result.gradient_error, 0.1, rtol=1e-6)
    np.testing.assert_allclose(result[1:], (0, 0, 1), atol=1e-7)
    noisy = found._replace(gradient=score + 0.1 * rng.normal(size=score.shape))
    picks = [rng.permutation(64)[:32] for _ in range(40)]
    # Half of the samples, without replacement: varies as all of them do.
    halves = [accuracy(Comparison(*(x[i] for x in noisy))) for i in picks]
    spread = np.std([h.gradient_error for h in halves])
    assert 0.5 < spread / accuracy(noisy).gradient_error_se < 2
