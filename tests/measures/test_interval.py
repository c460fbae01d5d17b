import numpy as np
import pytest

from diffreward.measures import bootstrap, interquartile_mean


def test_bootstrap_of_a_mean_covers_like_the_normal_interval():
    x = np.random.default_rng(0).normal(3.0, 2.0, 400)
    estimate = bootstrap(np.mean, (x,), resamples=2000)
    half = 1.96 * x.std() / 20
    assert estimate.value == pytest.approx(x.mean())
    assert estimate.low == pytest.approx(x.mean() - half, abs=0.03)
    assert estimate.high == pytest.approx(x.mean() + half, abs=0.03)


def test_bootstrap_resamples_each_group_on_its_own_and_its_rows_together():
    a, b = np.zeros(5), np.ones(50)
    assert bootstrap(lambda x, y: y.mean() - x.mean(), (a,), (b,)) == (1.0, 1.0, 1.0)
    x = np.arange(30.0)
    assert bootstrap(lambda x, y: (y - x).mean(), (x, x + 2)) == (2.0, 2.0, 2.0)
    assert bootstrap(lambda x, y: (y - x).mean(), (x,), (x + 2,)).low < 1


def test_bootstrap_refuses_nothing():
    with pytest.raises(ValueError, match="sample 1 is empty"):
        bootstrap(lambda x, y: 0.0, (np.ones(3),), (np.ones(0),))


def test_interquartile_mean_drops_a_quarter_on_both_sides():
    assert interquartile_mean(np.array([-100, 1, 2, 3, 4, 5, 6, 1000.0])) == 3.5
