"""What every reward distance must and must not notice, on random finite problems."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffreward.measures import (
    dard_distance_table,
    epic_distance_table,
    starc_distance_table,
)
from tests.measures import problems

SEEDS = st.integers(0, 2**31)
EXAMPLES = settings(deadline=None, max_examples=40)


def epic(problem, first, second):
    return epic_distance_table(first, second, problem.discount)


def dard(problem, first, second):
    return dard_distance_table(first, second, problem.transition, problem.discount)


def starc(canonical):
    return lambda problem, first, second: starc_distance_table(
        first, second, problem.transition, problem.discount, canonical=canonical
    )


DISTANCES = {"epic": epic, "dard": dard, "val": starc("val"), "min": starc("minimal")}
every_distance = pytest.mark.parametrize("name", DISTANCES)


@every_distance
@EXAMPLES
@given(seed=SEEDS)
def test_is_a_pseudometric_into_the_unit_interval(name, seed):
    distance, p = DISTANCES[name], problems.draw(seed)
    third = p.rng.normal(size=p.first.shape)
    one_two = distance(p, p.first, p.second)
    assert 0 <= one_two <= 1
    assert one_two == pytest.approx(distance(p, p.second, p.first), abs=1e-12)
    assert distance(p, p.first, p.first) == 0
    detour = distance(p, p.first, third) + distance(p, third, p.second)
    assert one_two <= detour + 1e-12


@every_distance
@EXAMPLES
@given(seed=SEEDS)
def test_ignores_positive_scale_and_shaping(name, seed):
    distance, p = DISTANCES[name], problems.draw(seed)
    changed = problems.shape(p, 3.7 * p.first)
    assert distance(p, p.first, changed) == pytest.approx(0, abs=1e-10)
    direct, after = (distance(p, r, p.second) for r in (p.first, changed))
    assert after == pytest.approx(direct, abs=1e-10)


@every_distance
@EXAMPLES
@given(seed=SEEDS)
def test_notices_the_sign(name, seed):
    distance, p = DISTANCES[name], problems.draw(seed)
    opposite = problems.shape(p, -0.2 * p.first)
    assert distance(p, p.first, opposite) == pytest.approx(1)
    # d(x, y)^2 + d(x, -y)^2 = (1 - c) / 2 + (1 + c) / 2.
    plus, minus = (distance(p, p.first, s * p.second) for s in (1, -1))
    assert plus**2 + minus**2 == pytest.approx(1)


@every_distance
@EXAMPLES
@given(seed=SEEDS)
def test_a_reward_of_shaping_alone_is_no_reward(name, seed):
    distance, p = DISTANCES[name], problems.draw(seed)
    nothing = problems.shape(p, np.zeros_like(p.first))
    assert distance(p, nothing, p.first) == pytest.approx(0.5)
    assert distance(p, nothing, 0 * p.first) == 0


@EXAMPLES
@given(seed=SEEDS)
def test_only_starc_ignores_redistribution_over_next_states(seed):
    p = problems.draw(seed)
    changed = problems.redistribute(p, p.first)
    for name in ("val", "min"):
        gap = DISTANCES[name](p, p.first, changed)
        assert gap == pytest.approx(0, abs=1e-10)
    for name in ("epic", "dard"):
        assert DISTANCES[name](p, p.first, changed) > 1e-3
