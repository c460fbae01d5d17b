import numpy as np
import pytest
from scipy import stats

from diffreward.measures import (
    bootstrap,
    interquartile_mean,
    mean_draws,
    nested_bootstrap,
    percentiles,
)


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


@pytest.mark.parametrize("between", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("replicates", [1, 3, 5])
def test_intervals_of_means_cover_what_varies_with_seeds_and_episodes(replicates, between):
    """Of 1,000 studies whose truth is 0; a binomial of 0.95 leaves .930 to .968."""
    rng, hits, studies = np.random.default_rng(7), 0, 1000
    between = between if replicates > 1 else 0.0
    for study in range(studies):
        seeds = between * rng.normal(size=(replicates, 1))
        values = seeds + 5.0 * rng.normal(size=(replicates, 20))
        found = percentiles(values.mean(), mean_draws(values, seed=study, draws=2000))
        hits += found.low <= 0.0 <= found.high
    assert 0.928 <= hits / studies <= 0.97


def test_an_interval_of_a_mean_is_students():
    values = np.array([[1.0, 3.0], [4.0, 6.0], [2.0, 2.0]])
    found = percentiles(values.mean(), mean_draws(values, draws=400_000))
    half = stats.t.ppf(0.975, 2) * np.std([2.0, 5.0, 2.0], ddof=1) / 3**0.5
    np.testing.assert_allclose(found, (3.0, 3.0 - half, 3.0 + half), rtol=0.02)
    with pytest.raises(ValueError, match="two replicates, or two units of one"):
        mean_draws(np.ones((1, 1)))


def test_draws_carry_the_uncertainty_of_both_ends_into_a_share():
    """Against a share whose delta-method deviation is known."""
    rng = np.random.default_rng(0)
    of = {"base": 1.0, "steered": 3.0, "expert": 5.0}
    drawn = {
        name: mean_draws(mean + rng.normal(size=(1, 400)), seed=i)
        for i, (name, mean) in enumerate(of.items())
    }
    share = (drawn["steered"] - drawn["base"]) / (drawn["expert"] - drawn["base"])
    deviation = np.sqrt((1 + 0.25 + 0.25) / 400) / 4
    np.testing.assert_allclose(share.std(), deviation, rtol=0.1)
