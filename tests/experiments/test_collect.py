"""Policies and data of a training that was killed, continued or tampered with."""

import numpy as np
import pytest

from configs import collect as configs
from diffreward import data as d
from diffreward import files, report
from experiments import collect


def write_policy(folder, scale=1.0):
    rng = np.random.default_rng(0)
    layer = lambda a, b: (scale * rng.normal(size=(a, b)), rng.normal(size=b))
    policy = d.SquashedGaussianPolicy((layer(3, 4),), layer(4, 2), layer(4, 2))
    d.save_policy(folder / "policy_00000100.safetensors", policy, {"task": "hopper"})
    return folder / "policy_00000100.safetensors"


def test_a_policy_that_was_exchanged_is_refused(tmp_path):
    path = write_policy(tmp_path)
    point = {"file": path.name, "sha256": files.sha256(path)}
    assert collect.own_policy(tmp_path, point).hidden[0][0].shape == (3, 4)
    write_policy(tmp_path, scale=2.0)
    with pytest.raises(ValueError, match=r"policy_00000100\S* is not the file that was"):
        collect.own_policy(tmp_path, point)


@pytest.mark.parametrize(("recorded", "trained"), [(1_000, True), (4_000, False)])
def test_a_curve_ahead_of_its_checkpoint_does_not_end_training(
    tmp_path, monkeypatch, recorded, trained
):
    """Killed between the two, on the way from a shorter training to a longer one."""
    config = configs.get_config("hopper,smoke")
    free = ("steps", "expert_transitions")
    settings = {k: v for k, v in config.to_dict().items() if k not in free}
    folder = tmp_path / "train"
    report.open_stage(folder, settings)
    report.write_json(folder / "curve.json", [{"step": config.steps, "score": 1.0}])
    report.close_stage(folder, {"steps": recorded})
    calls = []
    monkeypatch.setattr(collect, "train", lambda *_: calls.append("train"))
    about = {"expert": {"rows": 1, "score": 1.0}}
    monkeypatch.setattr(collect, "export", lambda *_: about)
    assert collect.main(config, tmp_path) == about
    assert calls == ["train"] * trained
    assert report.read_json(folder / "report.json")["steps"] == config.steps
