"""D4RL's datasets by name."""

import hashlib
import sys

import numpy as np
import pytest

from diffreward.data import LOCOMOTION, Episodes, normalised_score, write_hdf5
from diffreward.data import registry as r


def arrays(obs_dim=11, act_dim=3, rows=30):
    rng = np.random.default_rng(0)
    ends = np.arange(rows) % 10 == 9
    return {
        "observations": rng.normal(size=(rows, obs_dim)),
        "actions": rng.uniform(-1, 1, (rows, act_dim)),
        "rewards": np.ones(rows),
        "terminals": np.zeros(rows, bool),
        "timeouts": ends,
    }


def test_every_locomotion_dataset_is_listed_with_its_published_address():
    url = r.d4rl_registry()["hopper-medium-replay-v2"].url
    assert url.endswith("/gym_mujoco_v2/hopper_medium_replay-v2.hdf5")
    assert len([n for n in r.d4rl_registry() if n.startswith("walker2d-")]) == 6


@pytest.mark.parametrize("name", LOCOMOTION)
def test_scores_of_the_reference_returns(name):
    task = LOCOMOTION[name]
    scores = normalised_score(name, np.array([task.random_return, task.expert_return]))
    np.testing.assert_allclose(scores, [0.0, 100.0], atol=1e-9)


@pytest.mark.parametrize("file", ["hopper_expert-v2.hdf5", "hopper-expert-v2.hdf5"])
def test_a_file_in_the_folder_is_found(tmp_path, file):
    write_hdf5(tmp_path / file, arrays(), {})
    episodes = r.load_d4rl("hopper-expert-v2", tmp_path)
    assert list(episodes.lengths) == [10, 10, 10]
    assert episodes.rewards.sum() == 30


def test_the_cache_can_be_named_by_the_environment(tmp_path, monkeypatch):
    write_hdf5(tmp_path / "hopper_expert-v2.hdf5", arrays(), {})
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    assert isinstance(r.load_d4rl("hopper-expert-v2"), Episodes)


def test_a_missing_file_is_downloaded_to_the_folder(tmp_path, monkeypatch):
    def fake(url, path, *, check):
        assert url == r.d4rl_registry()["hopper-expert-v2"].url
        write_hdf5(path, arrays(), {})
        check(path)
        return path

    monkeypatch.setattr(r, "download", fake)
    assert len(r.load_d4rl("hopper-expert-v2", tmp_path).lengths) == 3
    assert (tmp_path / "hopper_expert-v2.hdf5").exists()


def test_data_of_another_task_is_refused_with_both_shapes(tmp_path):
    write_hdf5(tmp_path / "hopper_expert-v2.hdf5", arrays(17, 6), {})
    with pytest.raises(
        ValueError, match="17 observations and 6 actions .* hopper has 11 and 3; .* half"
    ):
        r.load_d4rl("hopper-expert-v2", tmp_path)


@pytest.mark.parametrize("value", [-1.5, 1e30])
def test_actions_beyond_the_simulators_are_refused_with_their_row(tmp_path, value):
    columns = arrays()
    columns["actions"][4:6, 1] = value
    write_hdf5(tmp_path / "hopper_expert-v2.hdf5", columns, {})
    with pytest.raises(ValueError, match=r"actions: row 4 holds .*2 such rows.*\[-1, 1\]"):
        r.load_d4rl("hopper-expert-v2", tmp_path)
    columns["actions"][4:6, 1] = np.sign(value) * (1 + 1e-6)  # rounding is no mistake
    write_hdf5(tmp_path / "hopper_expert-v2.hdf5", columns, {})
    r.load_d4rl("hopper-expert-v2", tmp_path)


@pytest.mark.parametrize(
    ("spec", "task"),
    [
        ("d4rl:walker2d-medium-v2", "walker2d"),
        ("d4rl:maze2d-umaze-v1", None),
        ("minari:mujoco/halfcheetah/medium-v0", "halfcheetah"),
        ("minari:mujoco/ant/medium-v0", None),
        ("collect:hopper/expert", "hopper"),
        ("data/hopper/x.hdf5", None),
    ],
)
def test_sources_name_their_task(spec, task):
    assert r.source_task(spec) == task


def test_unknown_names_are_answered_with_the_known():
    with pytest.raises(ValueError, match="unknown D4RL dataset 'hopper-exprt-v2'.*hopper-"):
        r.load_d4rl("hopper-exprt-v2")


def test_the_package_is_read_but_not_imported(tmp_path, monkeypatch):
    package = tmp_path / "d4rl"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('needs a simulator')\n")
    (package / "infos.py").write_text(
        "import os\nNOISE = os.sep\n"
        "DATASET_URLS = {'ant-x-v9': 'http://host/ant.hdf5', 'no-score': 'http://b'}\n"
        "REF_MIN_SCORE = {'ant-x-v9': -1.5}\nREF_MAX_SCORE = {'ant-x-v9': 3}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = r.d4rl_registry()
    assert registry["ant-x-v9"] == r.D4RLDataset("http://host/ant.hdf5", -1.5, 3.0)
    assert "no-score" not in registry
    assert "hopper-expert-v2" in registry
    assert "d4rl" not in sys.modules


def test_a_file_that_is_no_longer_what_was_downloaded_is_refused(tmp_path):
    path = tmp_path / "hopper-expert-v2.hdf5"
    write_hdf5(path, arrays(), {})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / f"{path.name}.sha256").write_text(f"{digest}  {path.name}\n")
    r.load_d4rl("hopper-expert-v2", tmp_path)
    write_hdf5(path, arrays(rows=20), {})
    with pytest.raises(ValueError, match="is not the file that was downloaded"):
        r.load_d4rl("hopper-expert-v2", tmp_path)
