"""Minari's layout, on files made here."""

import json

import h5py
import numpy as np
import pytest

from diffreward.data.minari import load_minari

ID = "mujoco/hopper/expert-v0"


def write(root, lengths=(4, 11, 3), extra=1, terminal=(1,)):
    path = root / ID / "data"
    path.mkdir(parents=True)
    with h5py.File(path / "main_data.hdf5", "w") as file:
        for number, steps in enumerate(lengths):
            group = file.create_group(f"episode_{number}")
            group["observations"] = np.full((steps + extra, 2), number, np.float64)
            group["actions"] = np.zeros((steps, 1), np.float32)
            group["rewards"] = np.arange(steps, dtype=np.float64)
            over = np.arange(steps) == steps - 1
            group["terminations"] = over & (number in terminal)
            group["truncations"] = over & (number not in terminal)
    return path


def test_the_extra_observation_is_left_out_and_ends_are_kept(tmp_path):
    write(tmp_path)
    episodes = load_minari(ID, tmp_path)
    assert list(episodes.lengths) == [4, 11, 3]
    for e, (start, length) in enumerate(
        zip(episodes.starts, episodes.lengths, strict=True)
    ):
        assert (episodes.observations[start : start + length] == e).all()
    ends = np.cumsum(episodes.lengths) - 1
    assert list(np.flatnonzero(episodes.terminals)) == [ends[1]]
    assert list(np.flatnonzero(episodes.timeouts)) == [ends[0], ends[2]]


def test_episodes_come_in_the_order_of_their_numbers(tmp_path):
    write(tmp_path, lengths=(1,) * 12)
    assert list(load_minari(ID, tmp_path).observations[:, 0]) == list(range(12))


def test_an_episode_that_was_cut_off_ends_in_a_timeout(tmp_path):
    path = write(tmp_path, lengths=(3, 2), terminal=())
    with h5py.File(path / "main_data.hdf5", "a") as file:
        file["episode_0/truncations"][...] = False
    assert list(load_minari(ID, tmp_path).lengths) == [3, 2]


def test_wrong_rows_name_the_episode(tmp_path):
    write(tmp_path, extra=3)
    with pytest.raises(ValueError, match=r"episode_0/observations: 7 rows for 4 actions"):
        load_minari(ID, tmp_path)


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = write(tmp_path) / "main_data.hdf5"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"main_data\.hdf5: not a readable Minari file"):
        load_minari(ID, tmp_path)
    path.unlink()
    (path.parent / "metadata.json").write_text(json.dumps({"data_format": "arrow"}))
    with pytest.raises(ValueError, match="data format: arrow"):
        load_minari(ID, tmp_path)


def test_nested_observations_are_refused_by_name(tmp_path):
    path = write(tmp_path) / "main_data.hdf5"
    with h5py.File(path, "a") as file:
        del file["episode_0/observations"]
        file["episode_0/observations/achieved_goal"] = np.zeros(3)
    with pytest.raises(ValueError, match="a group of achieved_goal"):
        load_minari(ID, tmp_path)


def test_a_missing_dataset_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install"):
        load_minari(ID, tmp_path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # minari wants links to code
def test_files_of_the_package_itself_are_read(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari", reason="the extra 'minari' is not installed")
    from gymnasium.spaces import Box
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(6, 2)).astype(np.float32)
    actions = rng.uniform(-1, 1, (5, 1)).astype(np.float32)
    buffer = EpisodeBuffer(
        observations=list(observations),
        actions=list(actions),
        rewards=[1.0] * 5,
        terminations=[False] * 5,
        truncations=[False] * 4 + [True],
    )
    minari.create_dataset_from_buffers(
        "made/here/x-v0",
        [buffer],
        observation_space=Box(-10, 10, (2,)),
        action_space=Box(-1, 1, (1,)),
    )
    episodes = load_minari("made/here/x-v0", tmp_path)
    np.testing.assert_array_equal(episodes.observations, observations[:5])
    np.testing.assert_array_equal(episodes.actions, actions)
