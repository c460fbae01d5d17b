"""Rank measures against SciPy, pairs counted one by one, and closed forms."""

import inspect
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from diffreward.measures import ranking
from diffreward.measures.interval import paired

RNG = np.random.default_rng(0)
FEW = {"resamples": 5}


def all_pairs(rewards, returns, gap):
    """Wins and ties counted pair by pair."""
    score = [
        1.0 if rewards[i] > rewards[j] else 0.5 if rewards[i] == rewards[j] else 0.0
        for i, j in permutations(range(len(rewards)), 2)
        if returns[i] - returns[j] > gap
    ]
    return np.mean(score)


@pytest.mark.parametrize(
    ("kind", "reference"), [("spearman", stats.spearmanr), ("kendall", stats.kendalltau)]
)
def test_rank_correlation_against_scipy_and_its_interval(kind, reference):
    x = RNG.normal(size=200)
    y = x + RNG.normal(size=200)
    got = ranking.rank_correlation(np.exp(x), y, kind=kind)
    assert got.value == pytest.approx(reference(x, y).statistic)
    # Large-sample standard error of Spearman's rho (Bonett & Wright, 2000).
    assert got.low < got.value < got.high
    if kind == "spearman":
        se = np.sqrt((1 + got.value**2 / 2) / 197)
        half = np.tanh(np.arctanh(got.value) + 1.96 * se) - got.value
        assert (got.high - got.value) == pytest.approx(half, rel=0.35)


def test_a_reversed_reward_has_the_opposite_rank():
    x, y = RNG.normal(size=(2, 50))
    plus, minus = (ranking.rank_correlation(s * x, y, **FEW).value for s in (1, -1))
    assert plus == pytest.approx(-minus)


def test_constant_rewards_rank_nothing():
    got = ranking.rank_correlation(np.ones(5), np.arange(5.0), **FEW)
    assert np.isnan(got).all()


def test_bands_separate_within_from_between():
    """A reward that knows the band and nothing else: high overall, none within."""
    returns = np.repeat(np.arange(4.0), 100) + RNG.uniform(0, 0.9, 400)
    rewards = np.floor(returns) + 0.1 * RNG.normal(size=400)
    assert ranking.rank_correlation(rewards, returns, **FEW).value > 0.9
    bands = ranking.rank_correlation_by_band(rewards, returns)
    for k, band in enumerate(bands):
        assert band.count == 100
        assert k <= band.low < band.high < k + 1
        assert band.correlation.low < 0.1 < 0.3 > band.correlation.value
        inside = np.floor(returns) == k
        direct = stats.spearmanr(rewards[inside], returns[inside]).statistic
        assert band.correlation.value == pytest.approx(direct)


def test_equal_returns_share_a_band():
    returns = np.repeat([0.0, 1.0], [30, 10])
    with pytest.raises(ValueError, match="band 0 of 4 has 0 of 40"):
        ranking.rank_correlation_by_band(RNG.normal(size=40), returns, **FEW)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=12),
    st.sampled_from([0.0, 1.0, 2.5]),
)
def test_preference_accuracy_counts_pairs(rows, gap):
    rewards, returns = np.array(rows, float).T
    if np.ptp(returns) <= gap:
        with pytest.raises(ValueError, match="min_gap"):
            ranking.preference_accuracy(rewards, returns, min_gap=gap)
        return
    got = ranking.preference_accuracy(rewards, returns, min_gap=gap, **FEW)
    assert got.value == pytest.approx(all_pairs(rewards, returns, gap))


def test_preference_accuracy_of_known_rewards():
    returns = RNG.permutation(20).astype(float)
    for rewards, expected in ((returns**3, 1.0), (-returns, 0.0), (0 * returns, 0.5)):
        got = ranking.preference_accuracy(rewards, returns, **FEW)
        assert got == (expected, expected, expected)


def test_auroc_counts_pairs_and_its_interval_is_the_normal_one():
    p, n = RNG.integers(0, 6, 40).astype(float), RNG.integers(0, 5, 30).astype(float)
    wins = (p[:, None] > n).mean() + 0.5 * (p[:, None] == n).mean()
    assert ranking.auroc(p, n, **FEW).value == pytest.approx(wins)
    assert ranking.mann_whitney(p, n) == pytest.approx(wins)
    # Two unit normals one apart: Phi(1 / sqrt 2); Hanley & McNeil (1982) for the error.
    p, n = RNG.normal(1.0, 1.0, 300), RNG.normal(0.0, 1.0, 300)
    got = ranking.auroc(p, n)
    a = got.value
    q1, q2 = a / (2 - a), 2 * a**2 / (1 + a)
    se = np.sqrt((a * (1 - a) + 299 * (q1 - a**2) + 299 * (q2 - a**2)) / 300**2)
    assert abs(a - stats.norm.cdf(0.5**0.5)) < 4 * se
    assert got.high - got.low == pytest.approx(2 * 1.96 * se, rel=0.2)


def test_balanced_accuracy_is_a_mean_of_two_shares_whatever_their_numbers():
    expert, base = np.array([1.0, 2.0, 3.0, 4.0]), np.r_[np.zeros(97), 2.5, 2.5, 9.0]
    got = ranking.balanced_accuracy(expert, base, threshold=1.5, **FEW)
    assert got.value == pytest.approx((3 / 4 + 97 / 100) / 2)
    assert got.low < got.value < got.high
    # Everything on one side is chance.
    assert ranking.balanced_accuracy(expert, base, threshold=99.0, **FEW).value == 0.5


def test_the_best_threshold_is_the_best_of_all():
    for trial in range(20):
        rng = np.random.default_rng(trial)
        expert = rng.normal(0.7, 1, 12).round(1)
        base = rng.normal(0, 1, 30).round(1)
        found = ranking.best_threshold(expert, base)
        score = lambda t, e=expert, b=base: (e > t).mean() + (b <= t).mean()
        every = np.linspace(-4, 4, 4001)
        assert score(found) == pytest.approx(max(map(score, every)))
    assert ranking.best_threshold(np.array([1.0]), np.array([1.0])) == 1.0
    assert ranking.best_threshold(np.array([3.0]), np.array([1.0])) == 2.0


def test_bad_input_is_named():
    x = np.arange(4.0)
    with pytest.raises(ValueError, match=r"one length >= 2, got shapes \(4,\) and \(3,\)"):
        paired(x, x[:3], "rewards and returns")
    with pytest.raises(ValueError, match="unknown rank correlation 'pearson'; did"):
        inspect.unwrap(ranking.rank_correlation)(x, x, kind="pearson")
    with pytest.raises(ValueError, match="row 2 is not finite"):
        ranking.rank_correlation(np.where(x == 2, np.nan, x), x)
    with pytest.raises(ValueError, match="sample 1 is empty"):
        ranking.auroc(x, x[:0])
