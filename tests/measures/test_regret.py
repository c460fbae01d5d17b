import numpy as np
import pytest

from diffreward.measures import PolicyReturns, policy_regret

RNG = np.random.default_rng(0)


def task(trained, n=400, spread=1.0):
    draw = lambda mean: mean + spread * RNG.normal(size=n)
    return PolicyReturns(draw(10.0), draw(trained), draw(2.0))


def test_ends_and_middle_of_the_scale():
    for trained, regret in ((10.0, 0.0), (2.0, 1.0), (6.0, 0.5), (-6.0, 2.0)):
        got = policy_regret(task(trained, spread=0.0), resamples=5)
        assert got == pytest.approx((regret, regret, regret))


def test_interval_against_the_delta_method():
    """Regret (E - T) / (E - R) has derivatives (T - R, R - E, E - T) / (E - R)^2."""
    got = policy_regret(task(7.0))
    e, t, r = 10.0, 7.0, 2.0
    gradient = np.array([t - r, r - e, e - t]) / (e - r) ** 2
    half = 1.96 * np.linalg.norm(gradient) / 20
    assert got.low < 3 / 8 < got.high
    assert got.high - got.low == pytest.approx(2 * half, rel=0.15)


def test_tasks_are_averaged_and_not_pooled():
    big = PolicyReturns(*(1000 * x for x in task(10.0, spread=0.0)))
    got = policy_regret([big, task(2.0, spread=0.0)], resamples=5)
    assert got.value == pytest.approx(0.5)


def test_bad_input_is_named():
    good = task(5.0, n=3)
    with pytest.raises(ValueError, match="no tasks"):
        policy_regret([])
    with pytest.raises(ValueError, match="task 1: no returns of the trained policy"):
        policy_regret([good, good._replace(trained=np.zeros(0))])
    with pytest.raises(ValueError, match="does not exceed random's"):
        policy_regret(good._replace(random=good.expert))
