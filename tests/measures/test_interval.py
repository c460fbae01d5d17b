import numpy as np
import pytest

from diffreward.measures import bootstrap, interquartile_mean, nested_bootstrap


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


def test_nested_bootstrap_has_the_variance_of_seeds_and_of_episodes():
    # Seeds vary most: the deviation of the mean is theirs over sqrt(seeds).
    rng = np.random.default_rng(0)
    seeds, episodes, rows = 40, 20, 5
    x = 3 * rng.normal(size=(seeds, 1, 1)) + rng.normal(size=(1, episodes, 1))
    x = (x + 0.1 * rng.normal(size=(seeds, episodes, rows))).reshape(seeds, -1)
    units = [list(np.arange(episodes * rows).reshape(episodes, rows))] * seeds
    mean = lambda i, rows: np.array([x[i, rows].mean(), len(rows)])
    value, draws = nested_bootstrap(mean, units, resamples=400)
    np.testing.assert_allclose(value, [x.mean(), episodes * rows])
    assert draws.shape == (400, 2)
    expected = x.mean(1).std() / np.sqrt(seeds)
    assert draws[:, 0].std() == pytest.approx(expected, rel=0.15)
    # Of one replicate only the episodes vary: whole ones, not rows.
    _, draws = nested_bootstrap(mean, units[:1], resamples=400)
    per_episode = x[0].reshape(episodes, rows).mean(1)
    expected = per_episode.std() / np.sqrt(episodes)
    assert draws[:, 0].std() == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("units", [[], [[np.arange(3)], []]])
def test_nested_bootstrap_refuses_nothing(units):
    with pytest.raises(ValueError, match="every replicate needs units"):
        nested_bootstrap(lambda i, rows: 0.0, units)
