import numpy as np
import pytest

from diffreward.measures import (
    SteeringPoint,
    effective_sample_size,
    gain_at_kl,
    mean_gain,
    return_at_kl,
)

RNG = np.random.default_rng(0)


def curve(kls, means, n=200, spread=0.0):
    """Points whose scales fall as KL rises: scales are no part of the comparison."""
    return [
        SteeringPoint(-float(i), float(k), m + spread * RNG.normal(size=n))
        for i, (k, m) in enumerate(zip(kls, means, strict=True))
    ]


def test_interpolates_between_scales_and_refuses_beyond():
    points = curve([0, 2, 8], [1.0, 5.0, 2.0])
    for kl, expected in ((0, 1.0), (1, 3.0), (2, 5.0), (5, 3.5), (8, 2.0)):
        assert return_at_kl(points, float(kl)) == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"KL 9 is outside \[0, 8\] nats"):
        return_at_kl(points, 9.0)
    with pytest.raises(ValueError, match="have the same KL 2"):
        return_at_kl(points + curve([2], [0.0]), 1.0)
    with pytest.raises(ValueError, match="no points"):
        return_at_kl([], 1.0)


def test_equal_curves_with_unlike_scales_have_no_gain():
    """A method that only names its scales differently is no better."""
    line = lambda kls: curve(kls, [3 * k for k in kls])
    got = gain_at_kl(line([0, 1, 4]), line([0, 2, 3, 6]), 2.5, resamples=5)
    assert got == pytest.approx((0, 0, 0))
    assert mean_gain(line([0, 1, 4]), line([0, 2, 3, 6]), resamples=5) == pytest.approx(
        (0, 0, 0), abs=1e-12
    )


def test_gain_and_its_normal_interval():
    first = curve([0, 4], [0.0, 8.0], spread=2.0)
    second = curve([0, 4], [0.0, 4.0], spread=1.0)
    got = gain_at_kl(first, second, 3.0, resamples=1000)
    # Weights 1/4 and 3/4 of points with standard errors 2 and 1 over sqrt(200).
    se = np.sqrt((4 + 1) * (1 / 16 + 9 / 16) / 200)
    assert abs(got.value - 3.0) < 4 * se
    assert got.high - got.low == pytest.approx(2 * 1.96 * se, rel=0.15)


def test_mean_gain_is_the_area_over_the_common_range():
    first, second = curve([0, 1, 10], [0, 4, 4]), curve([0.5, 3], [0, 0])
    # Of the first from 0.5 to 3: a trapezoid (2 + 4) / 2 * 0.5 and 4 * 2.
    got = mean_gain(first, second, resamples=5).value
    assert got == pytest.approx((1.5 + 8) / 2.5)
    assert mean_gain(second, first, resamples=5).value == pytest.approx(-got)
    with pytest.raises(ValueError, match="share no range"):
        mean_gain(first, curve([11, 12], [0, 0]))


def test_effective_sample_size():
    assert effective_sample_size(np.full(7, -1e4)) == pytest.approx(7)
    assert effective_sample_size(np.array([0.0, -1e4, -np.inf])) == pytest.approx(1)
    w = RNG.uniform(size=30)
    got = effective_sample_size(np.log(w) + 500)
    assert got == pytest.approx(w.sum() ** 2 / (w**2).sum())
    with pytest.raises(ValueError, match="no weight is positive"):
        effective_sample_size(np.array([-np.inf]))
