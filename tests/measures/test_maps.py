import numpy as np
import pytest

from diffreward import measures
from diffreward.measures import mass_near_goal

X = np.linspace(0.05, 0.95, 10)
CENTRES = np.stack(np.meshgrid(X, X, indexing="ij"), -1)
GOAL = np.array([0.75, 0.25])


def test_area_under_the_mass_curve_by_integration():
    values = np.random.default_rng(0).normal(size=(10, 10))
    values[0, :3] = np.nan
    known = np.isfinite(values)
    distance = np.linalg.norm(CENTRES - GOAL, axis=-1)[known]
    mass = values[known] - values[known].min()
    radii = np.linspace(0, 0.4, 20001)
    share = [(mass * (distance <= r)).sum() / mass.sum() for r in radii]
    got = mass_near_goal(values, CENTRES, GOAL, 0.4)
    assert got.area == pytest.approx(np.trapezoid(share, radii) / 0.4, abs=1e-4)
    # Neither the free constant nor the scale of a reward matters.
    again = mass_near_goal(3 * values - 7, CENTRES, GOAL, 0.4)
    assert again == pytest.approx(got)


def test_a_peak_at_the_goal_and_one_elsewhere():
    values = np.zeros((10, 10))
    values[7, 2] = 1.0
    at_goal = mass_near_goal(values, CENTRES, GOAL, 0.5)
    assert at_goal.area == pytest.approx(1)
    elsewhere = mass_near_goal(values, CENTRES, np.array([0.05, 0.95]), 0.5)
    assert elsewhere.area == 0
    # A flat disc of radius r far from walls would leave 1/3 of its own mass: the cone.
    flat = mass_near_goal(values, CENTRES, np.array([0.5, 0.5]), 0.3).flat
    assert flat == pytest.approx(np.pi * 0.3**2 / 3, rel=0.1)


def test_bad_maps_are_named():
    with pytest.raises(ValueError, match="no known bin"):
        mass_near_goal(np.full((10, 10), np.nan), CENTRES, GOAL, 1.0)
    with pytest.raises(ValueError, match="same value"):
        mass_near_goal(np.ones((10, 10)), CENTRES, GOAL, 1.0)
    with pytest.raises(ValueError, match="radius must be positive"):
        mass_near_goal(np.eye(10), CENTRES, GOAL, 0.0)


def test_maps_count_average_and_mask():
    grid = measures.make_grid(np.zeros(2), np.array([2.0, 1.0]), 0.5)
    assert grid.centres.shape == (4, 2, 2)
    np.testing.assert_allclose(grid.centres[3, 1], [1.75, 0.75])
    points = np.array([[0.1, 0.1], [0.2, 0.3], [1.9, 0.9]])
    values = np.array([1.0, 3.0, 5.0])
    got = measures.value_map(grid, points, values, min_count=1)
    assert got[0, 0] == 2.0
    assert got[3, 1] == 5.0
    assert np.isnan(got).sum() == 6
    assert np.isnan(measures.value_map(grid, points, values, min_count=2)).sum() == 7


def test_quantiles_of_bins_by_hand():
    grid = measures.make_grid(np.zeros(2), np.array([2.0, 1.0]), 0.5)
    rng = np.random.default_rng(0)
    points, values = rng.uniform(size=(200, 2)) * [2.0, 1.0], rng.normal(size=200)
    got = measures.value_map(grid, points, values, min_count=1, quantile=0.9)
    for (i, j), value in np.ndenumerate(got):
        inside = (points // 0.5 == [i, j]).all(1)
        np.testing.assert_allclose(value, np.quantile(values[inside], 0.9))


def test_surprise_is_minus_log_of_the_share_as_large():
    seen = np.array([2.0, 4.0, 1.0, 2.0])
    got = measures.surprise(np.array([0.0, 1.0, 2.0, 4.0, 9.0]), seen)
    np.testing.assert_allclose(got, -np.log([1, 1, 3 / 4, 1 / 4, 1 / 4]))
    between = measures.surprise(np.array([3.0]), seen)
    np.testing.assert_allclose(between, -np.log([3 / 4, 1 / 4]).mean())
    # Whatever is seen, its own surprise is exponential with mean 1.
    many = np.random.default_rng(0).normal(size=10_000)
    own = measures.surprise(many, many)
    np.testing.assert_allclose([own.mean(), own.std()], 1.0, atol=0.01)
    np.testing.assert_array_equal(measures.surprise(np.exp(many), np.exp(many)), own)


def test_smoothing_ignores_unknown_bins():
    values = np.full((5, 5), 3.0)
    values[2, 2] = np.nan
    got = measures.smooth_map(values, 1.0)
    np.testing.assert_allclose(got[np.isfinite(values)], 3.0)
    assert np.isnan(got[2, 2])


def test_log_visit_ratio_by_hand():
    expert, base = np.array([[30.0, 0.0]]), np.array([[10.0, 40.0]])
    got = measures.log_visit_ratio(expert, base, min_count=1, sigma=1e-3)
    expected = np.log([[(30.5 / 30) / (10.5 / 50), (0.5 / 30) / (40.5 / 50)]])
    np.testing.assert_allclose(got, expected)
    assert np.isnan(measures.log_visit_ratio(expert, base, min_count=20, sigma=1e-3)[0, 0])


def test_peak_and_top_cells():
    grid = measures.make_grid(np.zeros(2), np.array([3.0, 3.0]), 0.5)
    goal = np.array([2.6, 0.4])
    values = -np.linalg.norm(grid.centres - np.array([2.25, 0.75]), axis=-1)
    peak = measures.find_peak(grid, values, goal, cell=1.0, top=1)
    np.testing.assert_allclose(peak.position, [2.25, 0.75])
    np.testing.assert_allclose(peak.distance, np.hypot(0.35, 0.35))
    assert peak.top_cells_hit
    elsewhere = measures.find_peak(grid, values, np.array([0.5, 2.5]), cell=1.0, top=3)
    assert not elsewhere.top_cells_hit
    with pytest.raises(ValueError, match="no bin with enough visits"):
        measures.find_peak(grid, values * np.nan, goal, cell=1.0)


def test_look_up_is_linear_between_centres_and_least_where_unknown():
    grid = measures.make_grid(np.array([0.0, 0.0]), np.array([3.0, 2.0]), 1.0)
    values = np.array([[0.0, 1.0], [2.0, 5.0], [np.nan, 7.0]])
    at = lambda *points: measures.look_up(grid, values, np.array(points))
    np.testing.assert_allclose(at([0.5, 0.5], [1.5, 1.5], [2.5, 1.5]), [0, 5, 7])
    np.testing.assert_allclose(at([1.0, 0.5], [1.0, 1.0]), [1, 2])
    np.testing.assert_allclose(at([2.5, 0.5], [9.0, 9.0], [-9.0, 0.5]), [0, 7, 0])
