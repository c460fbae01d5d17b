"""Another task is one entry of the table: Adroit's pen, added from outside."""

from copy import deepcopy

import numpy as np
import pytest

from configs import collect as collect_configs
from configs import locomotion as configs
from diffreward import data as d
from experiments import collect
from experiments.locomotion import page
from experiments.locomotion.data import blank_windows, first_states, make_data
from experiments.locomotion.run import build
from tests.data.test_registry import arrays

# D4RL's returns of random and expert (Fu et al., 2020).
PEN = d.LocomotionTask("gymnasium_robotics:AdroitHandPen-v1", 45, 24, 96.262799, 3076.8331)


@pytest.fixture
def pen(monkeypatch, tmp_path):
    """The task registered, and its run on files of random numbers."""
    monkeypatch.setitem(d.LOCOMOTION, "pen", PEN)
    config = configs.get_config("pen,smoke")
    with config.unlocked():
        for name in ("base", "expert"):
            path = tmp_path / f"{name}.hdf5"
            d.write_hdf5(path, arrays(45, 24, rows=100), {})
            config.data[name] = str(path)
    return build(config, tmp_path / "run")


def result(task):
    """A report of two rows and a baseline, as an evaluation leaves it."""
    row = {
        "score": [1.0, 0.5, 1.5],
        "iqm": 1.0,
        "failure": 7.0,
        "survival": [1.0, 0.5],
        "by_seed": [0.5, 1.5],
        "t_stop": 0,
        "scale": 1.0,
        "episodes": 4,
        "steps_per_second": 1.0,
        "planner_seconds": 1.0,
        "physics_seconds": 1.0,
    }
    names = ("unsteered", "score", "discriminator", "expert")
    reward = {
        "fvu": 0.5,
        "fvu_by_level": [0.5, 0.5],
        "steered_fvu": 0.5,
        "steered_fvu_by_level": [0.5, 0.5],
        "auroc": [0.5, 0.4, 0.6],
        "gap_auroc": 0.5,
    }
    return {
        "task": task,
        "methods": {name: deepcopy(row) for name in names},
        "rewards": {"rewards": reward, "paper_rewards": reward},
    }


def test_its_simulator_data_and_models_have_its_shapes(pen):
    make_data(pen)
    assert pen.denoiser.shape == (pen.config.model.horizon, 45 + 24)
    assert first_states(pen, 2).shape == (2, 45)
    assert blank_windows(pen).rows.shape[1] == 45 + 24
    np.testing.assert_allclose(d.normalised_score("pen", np.array([96.262799])), 0)
    assert not [name for name in d.d4rl_registry() if name.startswith("pen-")]


def test_its_page_needs_no_published_score(pen, tmp_path):
    text = page.page(pen, result("pen"))
    assert "`-v1` simulators" in text
    assert "paper*" not in text
    assert "| score | " in text
    both = page.collected([result("hopper"), result("pen")])
    line = next(x for x in both.splitlines() if x.startswith("| *published, means*"))
    assert line.endswith("| 27.0 |  |")
    assert "paper*" in page.table(result("hopper"))
    assert "published" not in page.collected([result("pen")])


def test_what_it_leaves_is_drawn_or_left_out(pen, tmp_path):
    """Frames of the hand; without any, a page that refers to none."""
    env = d.make_locomotion("pen")
    env.reset(seed=0)
    data = env.unwrapped.data
    states = np.stack([np.concatenate([data.qpos, data.qvel])] * 2)
    env.close()
    assert d.body_segments("pen", states).shape[2:] == (2, 2)
    assert "film.gif" not in page.page(pen, result("pen"))


def test_policies_can_be_trained_on_it(pen):
    config = collect_configs.get_config("pen,smoke")
    collect.check(config)
    assert config.task == "pen"


def test_data_that_no_policy_makes_are_refused_before_training(pen, tmp_path):
    with pytest.raises(ValueError, match=r"no policies for 'pen'; .* use other data"):
        build(configs.get_config("pen,smoke"), tmp_path)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (PEN._replace(act_dim=3), r"actions of shape \(24,\), .* 45 and 3; correct"),
        (PEN._replace(env_id="no_such_module:Pen-v1"), "pip install no-such-module"),
        (PEN._replace(env_id="AdroitPan-v1"), "AdroitPan-v1 is missing"),
    ],
)
def test_a_wrong_entry_is_named_before_training(pen, monkeypatch, tmp_path, entry, words):
    monkeypatch.setitem(d.LOCOMOTION, "pen", entry)
    with pytest.raises(ValueError, match=f"pen: .*{words}"):
        build(pen.config, tmp_path)
