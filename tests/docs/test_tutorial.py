import runpy
import sys
from pathlib import Path

import jax

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.py"


def test_the_tutorial_runs_and_its_reward_is_one(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(TUTORIAL), "--quick"])
    # A script of its own process: none of the strictness of the tests.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        made = runpy.run_path(str(TUTORIAL))
    said = capsys.readouterr().out
    assert "the base predicts x_0" in said
    assert made["found"].measures["auroc"][1] > 0.7
    last = {name: float(x[:, -1, 0].mean()) for name, x in made["drawn"].items()}
    # The expert drifts to the right of the base, and steering follows it.
    assert last["steered"] - last["base"] > 0.4 * (last["expert"] - last["base"])
    assert last["expert"] - last["base"] > 0.1
