"""Minari's layout, on files made here."""

import json
import re

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
    with pytest.raises(ValueError, match=r"main_data\.hdf5: not a readable HDF5 file"):
        load_minari(ID, tmp_path)
    path.unlink()
    (path.parent / "metadata.json").write_text(json.dumps({"data_format": "arrow"}))
    with pytest.raises(ValueError, match=r"arrow storage|not a readable Minari"):
        load_minari(ID, tmp_path)
    (path.parent / "metadata.json").write_text(json.dumps({"data_format": "zarr"}))
    with pytest.raises(ValueError, match="data format: zarr"):
        load_minari(ID, tmp_path)


PARTS = {"observation": 4, "desired_goal": 2, "achieved_goal": 1}


def with_parts(tmp_path, declared=None):
    path = write(tmp_path)
    with h5py.File(path / "main_data.hdf5", "a") as file:
        for episode in file.values():
            steps = len(episode["observations"])
            del episode["observations"]
            for name, width in PARTS.items():
                episode[f"observations/{name}"] = np.full((steps, width), width, "f4")
    if declared:
        space = {"type": "Dict", "subspaces": {name: {} for name in declared}}
        about = {"observation_space": json.dumps(space)}
        (path / "metadata.json").write_text(json.dumps(about))


def test_dictionaries_of_observations_stand_side_by_side(tmp_path):
    with_parts(tmp_path)
    row = load_minari(ID, tmp_path).observations[0].tolist()
    assert row == [1, 2, 2, 4, 4, 4, 4]  # sorted by name
    row = load_minari(f"{ID}#desired_goal+observation", tmp_path).observations[0].tolist()
    assert row == [2, 2, 4, 4, 4, 4]
    with pytest.raises(ValueError, match="asked for or declared are goal"):
        load_minari(f"{ID}#goal", tmp_path)


def test_the_declared_order_of_observations_is_kept(tmp_path):
    with_parts(tmp_path, declared=PARTS)
    row = load_minari(ID, tmp_path).observations[0].tolist()
    assert row == [4, 4, 4, 4, 2, 2, 1]


def test_parts_of_one_array_and_unlike_parts_are_refused(tmp_path):
    write(tmp_path / "plain")
    with pytest.raises(ValueError, match="no parts to choose from"):
        load_minari(f"{ID}#observation", tmp_path / "plain")
    with_parts(tmp_path, declared=["observation"])
    with pytest.raises(ValueError, match="has the parts achieved_goal, desired_goal, obs"):
        load_minari(ID, tmp_path)


def replaced(key, value):
    def damage(file):
        del file[key]
        file[key] = value

    return damage


def compensating(key):
    """One row too many in one episode, one too few in the next: the sum is right."""

    def damage(file):
        replaced(f"episode_0/{key}", np.zeros(5, file[f"episode_0/{key}"].dtype))(file)
        replaced(f"episode_1/{key}", np.zeros(10, file[f"episode_1/{key}"].dtype))(file)

    return damage


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda file: file.create_group("stats"), "'stats' is not an episode"),
        (lambda file: file.create_group("episode_x"), "'episode_x' is not an episode"),
        (replaced("episode_1", np.zeros(3)), "episode_1/observations is missing"),
        (
            replaced("episode_1/actions", np.float32(1)),
            r"episode_1/actions: float32 shaped \(\)",
        ),
        (replaced("episode_1/observations", h5py.Empty("f4")), "expected numbers"),
        (replaced("episode_1/observations", np.zeros((12, 5))), r"shapes .*\(2,\), \(5,\)"),
        (replaced("episode_1/observations", np.zeros(12)), r"shapes .*\(\), \(2,\)"),
        (replaced("episode_1/terminations", np.zeros(1, bool)), "1 rows for 11 actions"),
        (replaced("episode_1/rewards", np.zeros(5)), "rewards: 5 rows for 11 actions"),
        (compensating("rewards"), "episode_0/rewards: 5 rows for 4 actions"),
        (compensating("truncations"), "episode_0/truncations: 5 rows for 4 actions"),
        (replaced("episode_1/terminations", np.full(11, np.nan)), "dtype float64"),
        (replaced("episode_1/terminations", np.array([b"False"] * 11)), r"dtype \|S5"),
    ],
)
def test_what_is_wrong_with_an_episode_is_said_with_the_file(tmp_path, damage, words):
    path = write(tmp_path) / "main_data.hdf5"
    with h5py.File(path, "a") as file:
        damage(file)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: .*{words}"):
        load_minari(ID, tmp_path)


@pytest.mark.parametrize("key", ["actions", "rewards"])
def test_nested_columns_are_refused_by_name(tmp_path, key):
    path = write(tmp_path) / "main_data.hdf5"
    with h5py.File(path, "a") as file:
        del file[f"episode_1/{key}"]
        file[f"episode_1/{key}/left"] = np.zeros(11)
    with pytest.raises(ValueError, match=f"episode_1/{key}: a group of left"):
        load_minari(ID, tmp_path)


@pytest.mark.parametrize("text", [b"", b"[1]", b'"x"', b"{}", b"\xff\xfe"])
def test_damaged_metadata_do_not_hide_what_is_missing(tmp_path, text):
    path = write(tmp_path)
    (path / "main_data.hdf5").unlink()
    (path / "metadata.json").write_bytes(text)
    with pytest.raises(ValueError, match=r"main_data\.hdf5: no such file .*: unknown"):
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
