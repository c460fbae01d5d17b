"""The scale that is chosen: by every seed's reward, on episodes that are not reported."""

from typing import NamedTuple

import numpy as np

from configs import locomotion as configs
from experiments.locomotion import evaluate


class Rollout(NamedTuple):
    returns: np.ndarray
    lengths: np.ndarray
    planner_seconds: float = 0.0
    physics_seconds: float = 0.0
    states: tuple = ()


RETURNS = {("a", 0.5): 3.0, ("a", 1.0): 2.0, ("b", 0.5): 0.0, ("b", 1.0): 4.0}


def test_scale_is_best_over_all_seeds_on_validation_episodes(monkeypatch):
    asked = []

    def roll_out(make, act, seeds, **others):
        del make, others
        params, scale = act.args
        asked.append((params, float(scale), seeds))
        value = RETURNS[params, float(scale)]
        return Rollout(np.full(len(seeds), value), np.ones(len(seeds)))

    monkeypatch.setattr(evaluate, "roll_out", roll_out)
    config = configs.get_config("hopper,smoke")
    with config.unlocked():
        config.evaluation.scales, config.evaluation.batch = (0.5, 1.0), 1
    method = evaluate.Method(lambda *_: None, ["a", "b"], None)
    found = evaluate.run(config, lambda *_: None, "score-chosen", method)
    assert found["scale"] == 1.0  # the first seed alone would take 0.5
    np.testing.assert_array_equal(found["tried"], [[0.5, 1.5], [1.0, 3.0]])
    np.testing.assert_array_equal(found["returns"], [[2.0] * 2, [4.0] * 2])
    tried, reported = asked[:8], asked[8:]
    numbers = lambda calls: {seed for _, _, seeds in calls for seed in seeds}
    assert not numbers(tried) & numbers(reported)
    assert {scale for _, scale, _ in reported} == {1.0}
