"""robomimic's files: demonstrations in groups, observations as dictionaries."""

import h5py
import numpy as np
import pytest

from diffreward.cli.samples import read_samples
from diffreward.data import parse_source, read_file, read_robomimic
from tests.fuzz.damage import damaged, outcome

LENGTHS = {"demo_0": 4, "demo_2": 3, "demo_10": 5}


def write(path, **changes):
    """A file with three demonstrations; ``changes`` replace arrays of the second."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        root = file.create_group("data")
        root.attrs["total"] = sum(LENGTHS.values())
        for i, (name, length) in enumerate(LENGTHS.items()):
            arrays = {
                "actions": np.full((length, 2), i / 10.0),
                "rewards": np.arange(length) / 1.0,
                "dones": np.ones(length, np.int64),
                "states": rng.normal(size=(length, 9)),
                "obs/object": np.full((length, 3), 1.0 + i),
                "obs/eef": np.full((length, 2), 5.0 + i),
                "obs/grip": np.full(length, 9.0),
                "next_obs/object": np.zeros((length, 3)),
            }
            arrays |= changes if i == 1 else {}
            for key, value in arrays.items():
                if value is not None:
                    root.create_dataset(f"{name}/{key}", data=value)
    return path


def test_demonstrations_follow_their_numbers_and_end_with_their_rows(tmp_path):
    path = write(tmp_path / "lift.hdf5")
    episodes = read_robomimic(path)
    assert episodes.lengths.tolist() == [4, 3, 5]
    assert not episodes.terminals.any(), "dones may be a success in the middle"
    assert episodes.observations[0].tolist() == [5, 5, 9, 1, 1, 1]  # eef, grip, object
    assert episodes.actions[4].tolist() == pytest.approx([0.1, 0.1])
    assert episodes.rewards[:5].tolist() == [0, 1, 2, 3, 0]
    np.testing.assert_array_equal(read_file(path).observations, episodes.observations)
    samples = read_samples(path, 2)
    assert samples.x.shape == (3 + 2 + 4, 2, 2 + 6)


def test_parts_of_observations_stand_behind_the_path(tmp_path):
    path = write(tmp_path / "lift.hdf5")
    named = f"{path}#object+eef"
    assert parse_source(named) == ("file", named)
    assert read_file(named).observations[-1].tolist() == [3, 3, 3, 7, 7]
    assert read_samples(named, 2).shape == (2, 2 + 5)
    with pytest.raises(ValueError, match=r"lift\.hdf5: .*obs has no arm; it has eef, grip"):
        read_file(f"{path}#arm")
    np.savez(tmp_path / "x.npz", observations=np.zeros((3, 1)))
    with pytest.raises(ValueError, match="no parts to choose from"):
        read_file(f"{tmp_path / 'x.npz'}#object")


REFUSED = {
    "shorter": ({"obs/object": np.zeros((2, 3))}, "has 3 actions and 2 rows"),
    "wider": ({"obs/object": np.zeros((3, 4))}, "observations of demonstrations differ"),
    "pictures": ({"obs/object": np.zeros((3, 8, 8, 3))}, "no vector per step; name the"),
    "no actions": ({"actions": None}, "demo_2/actions is missing"),
    "no steps": (
        {k: np.zeros((0, 2)) for k in ("actions", "obs/object", "obs/eef", "obs/grip")},
        "has 0 actions",
    ),
    "rewards": ({"rewards": np.zeros((3, 2))}, "rewards has shape"),
    "numbers": ({"actions": np.full((3, 2), np.nan)}, "actions: row 4"),
    "another part": ({"obs/object": None}, "observations of demonstrations differ"),
    "no obs": (
        {"obs/object": None, "obs/eef": None, "obs/grip": None},
        "has no obs, only states of the simulator",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_refused_with_its_place(name, tmp_path):
    changes, message = REFUSED[name]
    path = write(tmp_path / "lift.hdf5", **changes)
    with pytest.raises(ValueError, match=message) as caught:
        read_file(path)
    assert "lift.hdf5" in str(caught.value)


def test_other_files_stay_d4rl_files(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file.create_dataset("data/other", data=np.zeros(3))
    with pytest.raises(ValueError, match="missing observations, actions"):
        read_file(tmp_path / "x.hdf5")
    with pytest.raises(ValueError, match="no data/demo_0"):
        read_robomimic(tmp_path / "x.hdf5")


def test_damaged_files_never_end_in_a_traceback(tmp_path):
    path = write(tmp_path / "lift.hdf5")
    whole, refused = path.read_bytes(), 0
    for _, data in damaged(whole, np.random.default_rng(3), 40):
        path.write_bytes(data)
        refused += outcome(lambda: read_file(path), path) is not None
    assert refused > 10
