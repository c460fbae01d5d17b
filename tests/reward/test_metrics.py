import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward import measures
from diffreward.diffusion import cosine
from diffreward.reward import metrics
from tests.reward.oracle import BASE, EXPERT, exact_pair, exact_reward

SCHEDULE = cosine(20)
PAIR = exact_pair(BASE, EXPERT, SCHEDULE)


def test_fvu_of_the_exact_and_of_no_reward(key):
    x = jnp.array([0.2, -1.0])
    exact = exact_reward(BASE, EXPERT, SCHEDULE)
    for rho, expected in ((exact, 0.0), (lambda x, t: jnp.zeros(()), 1.0)):
        residual, signal = metrics.variance_by_level(rho, PAIR, key, x)
        np.testing.assert_allclose(residual / signal, expected, atol=1e-4)
    # Half the reward leaves a quarter of the variance.
    half = lambda x, t: 0.5 * exact(x, t)
    residual, signal = metrics.variance_by_level(half, PAIR, key, x)
    np.testing.assert_allclose(residual / signal, 0.25, atol=1e-3)


def test_masked_and_pinned_entries_do_not_enter_the_fvu(key):
    # A reward that is right for entry 0 only, up to a wrong gradient in entry 1.
    exact = exact_reward(BASE, EXPERT, SCHEDULE)
    wrong = lambda x, t: exact(x, t) + 7.0 * x[1]
    x = jnp.array([0.2, -1.0])
    for kwargs in (
        {"mask": jnp.array([True, False])},
        {"pinned": jnp.array([False, True])},
    ):
        residual, signal = metrics.variance_by_level(wrong, PAIR, key, x, **kwargs)
        np.testing.assert_allclose(residual / signal, 0.0, atol=1e-3)


def test_noised_reward_averages_over_the_noise(key):
    rho = lambda x, t: jnp.sum(x**2)
    x = jnp.array([1.0, -2.0])
    got = metrics.noised_reward(rho, PAIR, key, x, num_noises=4000)
    expected = SCHEDULE.alpha_bar * 5 + 2 * (1 - SCHEDULE.alpha_bar)
    np.testing.assert_allclose(got, expected, atol=0.2)
    pinned = jnp.array([True, True])
    held = metrics.noised_reward(rho, PAIR, key, x, pinned=pinned)
    np.testing.assert_allclose(held, 5.0)


def test_maps_count_average_and_mask():
    grid = metrics.make_grid(np.zeros(2), np.array([2.0, 1.0]), 0.5)
    assert grid.centres.shape == (4, 2, 2)
    np.testing.assert_allclose(grid.centres[3, 1], [1.75, 0.75])
    points = np.array([[0.1, 0.1], [0.2, 0.3], [1.9, 0.9]])
    values = np.array([1.0, 3.0, 5.0])
    got = metrics.value_map(grid, points, values, min_count=1)
    assert got[0, 0] == 2.0
    assert got[3, 1] == 5.0
    assert np.isnan(got).sum() == 6
    assert np.isnan(metrics.value_map(grid, points, values, min_count=2)).sum() == 7


def test_quantiles_of_bins_by_hand():
    grid = metrics.make_grid(np.zeros(2), np.array([2.0, 1.0]), 0.5)
    rng = np.random.default_rng(0)
    points, values = rng.uniform(size=(200, 2)) * [2.0, 1.0], rng.normal(size=200)
    got = metrics.value_map(grid, points, values, min_count=1, quantile=0.9)
    for (i, j), value in np.ndenumerate(got):
        inside = (points // 0.5 == [i, j]).all(1)
        np.testing.assert_allclose(value, np.quantile(values[inside], 0.9))


def test_surprise_is_minus_log_of_the_share_as_large():
    seen = np.array([2.0, 4.0, 1.0, 2.0])
    got = metrics.surprise(np.array([0.0, 1.0, 2.0, 4.0, 9.0]), seen)
    np.testing.assert_allclose(got, -np.log([1, 1, 3 / 4, 1 / 4, 1 / 4]))
    between = metrics.surprise(np.array([3.0]), seen)
    np.testing.assert_allclose(between, -np.log([3 / 4, 1 / 4]).mean())
    # Whatever is seen, its own surprise is exponential with mean 1.
    many = np.random.default_rng(0).normal(size=10_000)
    own = metrics.surprise(many, many)
    np.testing.assert_allclose([own.mean(), own.std()], 1.0, atol=0.01)
    np.testing.assert_array_equal(metrics.surprise(np.exp(many), np.exp(many)), own)


def test_smoothing_ignores_unknown_bins():
    values = np.full((5, 5), 3.0)
    values[2, 2] = np.nan
    got = metrics.smooth_map(values, 1.0)
    np.testing.assert_allclose(got[np.isfinite(values)], 3.0)
    assert np.isnan(got[2, 2])


def test_log_visit_ratio_by_hand():
    expert, base = np.array([[30.0, 0.0]]), np.array([[10.0, 40.0]])
    got = metrics.log_visit_ratio(expert, base, min_count=1, sigma=1e-3)
    expected = np.log([[(30.5 / 30) / (10.5 / 50), (0.5 / 30) / (40.5 / 50)]])
    np.testing.assert_allclose(got, expected)
    assert np.isnan(metrics.log_visit_ratio(expert, base, min_count=20, sigma=1e-3)[0, 0])


def test_peak_and_top_cells():
    grid = metrics.make_grid(np.zeros(2), np.array([3.0, 3.0]), 0.5)
    goal = np.array([2.6, 0.4])
    values = -np.linalg.norm(grid.centres - np.array([2.25, 0.75]), axis=-1)
    peak = metrics.find_peak(grid, values, goal, cell=1.0, top=1)
    np.testing.assert_allclose(peak.position, [2.25, 0.75])
    np.testing.assert_allclose(peak.distance, np.hypot(0.35, 0.35))
    assert peak.top_cells_hit
    elsewhere = metrics.find_peak(grid, values, np.array([0.5, 2.5]), cell=1.0, top=3)
    assert not elsewhere.top_cells_hit
    with pytest.raises(ValueError, match="no bin with enough visits"):
        metrics.find_peak(grid, values * np.nan, goal, cell=1.0)


def test_auroc_is_what_a_threshold_would_get(key):
    """Exact rewards separate samples of the two laws as well as their densities do."""
    rho = exact_reward(BASE, EXPERT, SCHEDULE)
    from diffreward.data import laws

    draw = lambda law, k: jax.vmap(lambda k: laws.sample(law, k))(jax.random.split(k, 500))
    value = jax.vmap(lambda x: rho(x, jnp.int32(0)))
    b, e = (np.asarray(value(draw(law, key))) for law in (BASE, EXPERT))
    assert measures.mann_whitney(e, b) > 0.95


def test_look_up_is_linear_between_centres_and_least_where_unknown():
    grid = metrics.make_grid(np.array([0.0, 0.0]), np.array([3.0, 2.0]), 1.0)
    values = np.array([[0.0, 1.0], [2.0, 5.0], [np.nan, 7.0]])
    at = lambda *points: metrics.look_up(grid, values, np.array(points))
    np.testing.assert_allclose(at([0.5, 0.5], [1.5, 1.5], [2.5, 1.5]), [0, 5, 7])
    np.testing.assert_allclose(at([1.0, 0.5], [1.0, 1.0]), [1, 2])
    np.testing.assert_allclose(at([2.5, 0.5], [9.0, 9.0], [-9.0, 0.5]), [0, 7, 0])
