"""Calibration against the exact ratio of two Gaussians and a general optimiser."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import norm

from diffreward.measures.calibration import (
    calibration_slope,
    measure_calibration,
    reliability_curve,
)

N = 4000


def two_gaussians(scale=1.0, num_base=N):
    """Exact log ratio of N(1, 1.3^2) and N(0, 1), at samples of both."""
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.normal(1.0, 1.3, N), rng.normal(0.0, 1.0, num_base)])
    ratio = norm.logpdf(x, 1.0, 1.3) - norm.logpdf(x)
    return scale * ratio, np.arange(N + num_base) < N


@pytest.mark.parametrize(("scale", "slope"), [(1.0, 1.0), (0.05, 20.0), (-2.0, -0.5)])
def test_slope_of_a_scaled_log_ratio(scale, slope):
    fit = calibration_slope(*two_gaussians(scale))
    assert fit.slope.low < slope < fit.slope.high
    assert fit.slope.high - fit.slope.low < 0.2 * abs(slope)
    assert fit.offset.low < 0 < fit.offset.high


def test_offset_is_the_log_odds_of_the_classes():
    rewards, labels = two_gaussians(num_base=N // 4)
    fit = calibration_slope(rewards + 3.0, labels)
    assert fit.offset.low < np.log(4) - 3 < fit.offset.high
    assert measure_calibration(rewards + 3.0, labels).offset == pytest.approx(
        np.log(4) - 3, abs=0.15
    )


def test_fit_against_a_general_optimiser():
    rewards, labels = two_gaussians(0.3)
    rewards = rewards + 2.0
    signs = np.where(labels, -1.0, 1.0)
    loss = lambda w: np.logaddexp(0, signs * (w[0] * rewards + w[1])).sum()
    best = minimize(loss, np.zeros(2), tol=1e-9).x
    fit = calibration_slope(rewards, labels)
    np.testing.assert_allclose([fit.slope.value, fit.offset.value], best, atol=1e-3)
    # Wald's interval from the information in the original units.
    p = expit(best[0] * rewards + best[1])
    design = np.stack([rewards, np.ones_like(rewards)])
    covariance = np.linalg.inv((design * p * (1 - p)) @ design.T)
    got = [fit.slope.high - fit.slope.value, fit.offset.high - fit.offset.value]
    np.testing.assert_allclose(got, 1.96 * np.sqrt(np.diag(covariance)), rtol=1e-3)


def test_the_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        x = np.concatenate([rng.normal(1, 1, 100), rng.normal(0, 1, 100)])
        fit = calibration_slope(x - 0.5, np.arange(200) < 100)
        covered += fit.slope.low < 1 < fit.slope.high
    assert 180 <= covered <= 199  # 190 expected, binomial deviation 3.1


def test_exact_log_ratio_is_calibrated_and_a_scaled_one_is_not():
    exact = measure_calibration(*two_gaussians())
    # With 8000 rows in 10 bins the error of a calibrated claim is of order
    # sqrt(2 / pi * 10 * p (1 - p) / 8000), about 0.013.
    assert exact.error < 0.025
    for scale in (0.05, 4.0):
        wrong = measure_calibration(*two_gaussians(scale))
        assert wrong.error > 0.05
        assert wrong.log_loss > exact.log_loss + 0.01
        assert wrong.brier > exact.brier


def test_scores_by_hand():
    # Equal classes and symmetric rewards: the offset is 0 by symmetry.
    rewards = np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    labels = np.array([True, False, True, False, False, True])
    p = expit(1.0)
    got = measure_calibration(rewards, labels, num_bins=2)
    assert got.offset == pytest.approx(0.0, abs=1e-9)
    assert got.log_loss == pytest.approx(-(2 * np.log(p) + np.log(1 - p)) / 3)
    assert got.brier == pytest.approx((2 * (1 - p) ** 2 + p**2) / 3)
    assert got.error == pytest.approx(abs(p - 2 / 3))
    np.testing.assert_allclose(got.reliability.claimed, [1 - p, p])
    np.testing.assert_allclose(got.reliability.observed, [1 / 3, 2 / 3])
    np.testing.assert_array_equal(got.reliability.counts, [3, 3])


def test_empty_bins_are_nan_and_one_belongs_to_the_last_bin():
    curve = reliability_curve(np.array([0.0, 1.0]), np.array([False, True]))
    assert curve.counts.tolist() == [1] + [0] * 8 + [1]
    assert np.isnan(curve.claimed[1:-1]).all()
    assert curve.observed[-1] == 1.0


def test_bad_input_is_named():
    x, labels = np.arange(4.0), np.array([False, False, True, True])
    with pytest.raises(ValueError, match="0 of 4 are expert"):
        measure_calibration(x, labels & False)
    with pytest.raises(ValueError, match="separates expert from base"):
        calibration_slope(x, labels)
    with pytest.raises(ValueError, match="separates expert from base"):
        calibration_slope(-x, labels)
    with pytest.raises(ValueError, match="all rewards are equal"):
        calibration_slope(0 * x, labels)
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        reliability_curve(x, labels)
