"""OGBench's files: T transitions stand as T + 1 rows."""

import numpy as np
import pytest

from diffreward.cli.samples import read_samples
from diffreward.data import load_ogbench, parse_source, read_file, read_ogbench

ENDS = np.array([0, 0, 0, 0, 1, 0, 0, 1])


def arrays(**change):
    rows = np.arange(8.0)
    given = {
        "observations": np.stack([rows, rows], 1).astype(np.float32),
        "actions": rows[:, None].astype(np.float32) / 10,
        "terminals": ENDS.astype(np.float32),
        "qpos": np.zeros((8, 3)),
    }
    return {**given, **change}


def test_the_last_row_of_a_trajectory_is_no_transition(tmp_path):
    np.savez(tmp_path / "pointmaze-medium-navigate-v0.npz", **arrays())
    episodes = load_ogbench("pointmaze-medium-navigate-v0", tmp_path)
    assert episodes.lengths.tolist() == [4, 2]
    assert episodes.observations[:, 0].tolist() == [0, 1, 2, 3, 5, 6]
    assert episodes.actions[:, 0].tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.5, 0.6])
    assert not episodes.terminals.any(), "the end of a recording is no end of a task"
    assert not episodes.rewards.any()
    path = tmp_path / "pointmaze-medium-navigate-v0.npz"
    np.testing.assert_array_equal(read_file(path).actions, episodes.actions)
    samples = read_samples(path, 2)
    assert samples.shape == (2, 3)
    assert samples.group.tolist() == [0, 0, 0, 1]
    with pytest.raises(ValueError, match="give --horizon"):
        read_samples(path)
    assert parse_source("ogbench:a-v0") == ("ogbench", "a-v0")
    assert parse_source(str(path)) == ("file", str(path))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"terminals": ENDS[:-1]}, "as many rows"),
        ({"terminals": 0 * ENDS}, "1 in the last row"),
        ({"terminals": 2 * ENDS}, "0 or 1"),
        ({"terminals": np.array([0, 0, 0, 1, 1, 0, 0, 1])}, "a single row"),
        ({"next_observations": np.zeros((8, 2))}, "next_observations"),
    ],
)
def test_other_layouts_are_refused(tmp_path, change, says):
    np.savez(tmp_path / "a.npz", **arrays(**change))
    with pytest.raises(ValueError, match=rf"a\.npz: .*{says}"):
        read_ogbench(tmp_path / "a.npz")
    given = arrays()
    del given["terminals"]
    np.savez(tmp_path / "a.npz", **given)
    with pytest.raises(ValueError, match="no terminals"):
        read_samples(tmp_path / "a.npz", 2)
    with pytest.raises(FileNotFoundError, match="no such dataset"):
        load_ogbench("nowhere", tmp_path)


def test_compact_files_and_rewards_of_others(tmp_path):
    path = tmp_path / "a.npz"
    both = np.maximum(ENDS, np.roll(ENDS, -1))
    np.savez(path, **arrays(terminals=both, valids=1.0 - ENDS, rewards=np.arange(8)))
    episodes = read_ogbench(path)
    assert episodes.lengths.tolist() == [4, 2]
    assert episodes.rewards.tolist() == [0, 1, 2, 3, 5, 6]
    np.savez(path, **arrays(rewards=np.arange(7)))
    with pytest.raises(ValueError, match=r"rewards: shape \(7,\)"):
        read_ogbench(path)
