"""Agreement of exact rewards with the estimated log ratio, and of known numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffreward.data.pairs import known_pairs
from diffreward.diffusion import cosine
from diffreward.reward.agreement import agreement, paired_values
from tests.reward.oracle import UNIT_BASE, UNIT_EXPERT, exact_pair, exact_reward

KNOWN = known_pairs()
SCHEDULE = cosine(100)
PAIR = exact_pair(UNIT_BASE, UNIT_EXPERT, SCHEDULE)
RHO = exact_reward(UNIT_BASE, UNIT_EXPERT, SCHEDULE)


def values(reward_fn, key, num=64, **kwargs):
    x_key, key = jax.random.split(key)
    x_0 = 1.5 * jax.random.normal(x_key, (num, 2))
    one = lambda k, x: paired_values(reward_fn, PAIR, k, x, num_noises=20, **kwargs)
    pairs = jax.jit(jax.vmap(one))(jax.random.split(key, num), x_0)
    return [np.asarray(v) for v in pairs]


@pytest.mark.parametrize("name", KNOWN)
def test_exact_rewards_are_calibrated(name):
    """At 20 levels, as cards measure it: inside the band in which a card says nothing."""
    known, schedule = KNOWN[name], cosine(20)
    pair = exact_pair(known.base, known.expert, schedule)
    rho = lambda x, t: known.reward(x, schedule.alpha_bar[t])
    keys = jax.random.split(jax.random.key(0), 3)
    x_0 = jnp.concatenate(
        [known.sample(r, k, 100) for r, k in zip(("base", "expert"), keys, strict=False)]
    )
    one = lambda k, x: paired_values(rho, pair, k, x, num_noises=16)
    run = jax.jit(lambda k, x: jax.lax.map(lambda a: one(*a), (k, x)))
    values = run(jax.random.split(keys[2], len(x_0)), x_0)
    slope, low, high = agreement(*map(np.asarray, values)).slope
    assert 0.8 < low < slope < high < 1.25


@pytest.mark.parametrize("factor", [1.0, 0.05, -1.0])
def test_slope_tells_the_units_and_the_sign(key, factor):
    got = agreement(*values(lambda x, t: factor * RHO(x, t), key))
    sign = np.sign(factor)
    assert sign * got.correlation[0] > 0.99
    assert sign * got.rank_correlation[0] > 0.98
    # Relative spread of the slope: sqrt((1 / r^2 - 1) / 62), below 0.02 at r > 0.99.
    assert got.slope[0] * factor == pytest.approx(1, abs=0.06)
    for value, low, high in got:
        assert low <= value <= high


def test_a_reward_at_a_noisier_level_is_flatter(key):
    """rho_t(x_t) of unit Gaussians is sqrt(ab) delta x_t: its mean has slope ab."""
    level = 50
    reward, ratio = values(RHO, key, level=jnp.int32(level))
    clean, _ = values(RHO, key)
    slope = np.polyfit(clean, reward, 1)[0]
    expected = float(SCHEDULE.alpha_bar[level] / SCHEDULE.alpha_bar[0])
    assert slope == pytest.approx(expected, rel=0.15)
    assert agreement(reward, ratio).slope[0] == pytest.approx(1 / expected, rel=0.25)


def test_pinned_entries_give_a_conditional_ratio(key):
    x, pinned = jnp.array([0.3, -0.2]), jnp.array([True, True])
    one = lambda k, x: paired_values(RHO, PAIR, k, x, pinned=pinned)
    reward, ratio = jax.jit(one)(key, x)
    assert ratio == 0
    assert reward == pytest.approx(float(RHO(x, jnp.int32(0))))


def test_intervals_against_the_normal_ones():
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    y = 2 * x + rng.normal(size=400)
    got = agreement(x, y, resamples=2000)
    fit, pearson = stats.linregress(x, y), stats.pearsonr(x, y)
    assert got.slope[0] == pytest.approx(fit.slope)
    assert got.correlation[0] == pytest.approx(pearson.statistic)
    assert got.rank_correlation[0] == pytest.approx(stats.spearmanr(x, y).statistic)
    width = got.slope[2] - got.slope[1]
    assert width == pytest.approx(2 * 1.96 * fit.stderr, rel=0.2)
    interval = pearson.confidence_interval()
    width = got.correlation[2] - got.correlation[1]
    assert width == pytest.approx(interval.high - interval.low, rel=0.25)


def test_constant_rewards_are_refused():
    with pytest.raises(ValueError, match=r"got 4 with rewards in \[1, 1\]"):
        agreement(np.ones(4), np.arange(4.0))


def test_three_samples_have_wide_intervals_and_no_warning():
    # One resample in nine is of one sample alone, of which nothing can be correlated.
    found = agreement(np.array([0.0, 1.0, 2.0]), np.array([0.1, 1.0, 2.2]))
    for value, low, high in found:
        assert np.isfinite([value, low, high]).all()
        assert low <= value <= high
    assert found.correlation[1] == 0
