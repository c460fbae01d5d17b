"""The scale that is chosen: by every seed's reward, on episodes that are not reported."""

from typing import NamedTuple

import numpy as np
import pytest

from configs import locomotion as configs
from experiments.locomotion import rollouts, rows
from experiments.locomotion.run import build


class Rollout(NamedTuple):
    returns: np.ndarray
    lengths: np.ndarray
    rewards: np.ndarray
    planner_seconds: float = 0.0
    physics_seconds: float = 0.0
    states: tuple = ()


def rollout(returns):
    """Of episodes of one step."""
    return Rollout(returns, np.ones(len(returns), int), np.zeros((len(returns), 1)))


def told(*arguments):
    """Acts by saying what it was told: parameters, scale and last level guided."""
    return arguments[:3]


def asked_once(act, seeds):
    """What a controller answers at the first step of some episodes."""
    return act(None, np.int32(0), np.ones((len(seeds), 2)))


RETURNS = {("a", 0.5): 3.0, ("a", 1.0): 2.0, ("b", 0.5): 0.0, ("b", 1.0): 4.0}


def test_scale_is_best_over_all_seeds_on_validation_episodes(monkeypatch, tmp_path):
    asked = []

    def roll_out(make, act, seeds, **others):
        del make, others
        params, scale, t_stop = asked_once(act, seeds)
        assert t_stop == 0
        asked.append((params, float(scale), seeds))
        value = RETURNS[params, float(scale)]
        return rollout(np.full(len(seeds), value))

    monkeypatch.setattr(rollouts, "roll_out", roll_out)
    config = configs.get_config("hopper,smoke")
    with config.unlocked():
        config.evaluation.scales, config.evaluation.batch = (0.5, 1.0), 1
    run = build(config, tmp_path)
    method, done = rows.Method(lambda *_: None, ["a", "b"], None), {}
    found = rollouts.evaluate_method(run, told, "score-chosen", method, done)
    assert found["visited"].shape == (2, 2)  # of the first member's two episodes
    assert found["scale"] == 1.0  # the first seed alone would take 0.5
    np.testing.assert_array_equal(found["tried"], [[0, 0.5, 1.5], [0, 1.0, 3.0]])
    np.testing.assert_array_equal(found["returns"], [[2.0] * 2, [4.0] * 2])
    tried, reported = asked[:8], asked[8:]
    numbers = lambda calls: {seed for _, _, seeds in calls for seed in seeds}
    assert not numbers(tried) & numbers(reported)
    assert {scale for _, scale, _ in reported} == {1.0}
    # Every seed reports episodes of its own.
    assert len(numbers(reported)) == len(reported) == 4
    # A method that acts alike has played them; at another scale or of others it has not.
    asked.clear()
    fixed = method._replace(scale=1.0)
    again = rollouts.evaluate_method(run, told, "score", fixed, done)
    np.testing.assert_array_equal(again["returns"], found["returns"])
    assert not asked
    other = method._replace(scale=0.5)
    assert rollouts.evaluate_method(run, told, "score", other, done)["returns"][0, 0] == 3
    twin = fixed._replace(params=["b", "a"])
    assert rollouts.evaluate_method(run, told, "score", twin, done)["returns"][0, 0] == 4
    assert len(asked) == 8


def test_episodes_that_chose_a_scale_cannot_be_reported(monkeypatch, tmp_path):
    def roll_out(make, act, seeds, **others):
        asked_once(act, seeds)
        return rollout(np.zeros(len(seeds)))

    monkeypatch.setattr(rollouts, "roll_out", roll_out)
    monkeypatch.setattr(rollouts, "TEST", rollouts.VALIDATION + 1)
    run = build(configs.get_config("hopper,smoke"), tmp_path)
    method = rows.Method(lambda *_: None, ["a"], None)
    with pytest.raises(ValueError, match="seed 10001 chose the scale"):
        rollouts.evaluate_method(run, told, "score-chosen", method, {})


@pytest.mark.parametrize("count", [1, rollouts.TEST - rollouts.VALIDATION + 1])
def test_validation_episodes_are_two_and_never_reach_the_reported_ones(tmp_path, count):
    config = configs.get_config("hopper,smoke")
    with config.unlocked():
        config.evaluation.validation_episodes = count
    with pytest.raises(ValueError, match=f"validation_episodes is {count}; use 2 or more"):
        build(config, tmp_path)
