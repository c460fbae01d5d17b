import numpy as np
import pytest

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
