"""Damaged files of a run are named, with what to delete."""

import re
import warnings

import numpy as np
import pytest

from configs import locomotion as configs
from experiments.locomotion import data, rollouts
from experiments.locomotion.run import build


def archive(path):
    rng = np.random.default_rng(0)
    arrays = {
        "returns": rng.normal(size=(2, 300)),
        "rewards": np.zeros((2, 3, 4), np.float32),
        "t_stop": np.array(0),
        "lengths": np.ones((2, 300), int),
        "scale": np.float64(1),
        "tried": np.zeros((0, 2)),
        "planner_seconds": np.float64(1),
        "physics_seconds": np.float64(1),
        "film_0": rng.normal(size=(40, 12)),
    }
    rollouts.save(path, arrays)
    return arrays


def test_what_was_saved_is_read(tmp_path):
    arrays = archive(tmp_path / "a.npz")
    found = rollouts.read(tmp_path / "a.npz")
    assert found.keys() == arrays.keys()
    for key, value in arrays.items():
        np.testing.assert_array_equal(found[key], value)


def outcome(path):
    """The arrays that are read, or nothing and what is said."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile warns of names that come twice
            return rollouts.read(path), ""
    except ValueError as error:
        return None, str(error)


@pytest.mark.parametrize("seed", range(20))
def test_flipped_bits_are_noticed_or_change_nothing(tmp_path, seed):
    path, rng = tmp_path / "a.npz", np.random.default_rng(seed)
    arrays = archive(path)
    content = bytearray(path.read_bytes())
    for place in rng.integers(len(content), size=8):
        content[place] ^= 1 << rng.integers(8)
    path.write_bytes(content)
    found, message = outcome(path)
    if found is None:
        assert re.match(rf"{re.escape(str(path))}.*delete it to run", message)
    else:
        for key in rollouts.KEYS:
            np.testing.assert_array_equal(found[key], arrays[key])


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.99])
def test_torn_archives_are_named(tmp_path, share):
    path = tmp_path / "a.npz"
    archive(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"a\.npz .*; delete it to run"):
        rollouts.read(path)


def test_archives_of_something_else_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", returns=np.ones(3))
    with pytest.raises(ValueError, match=r"a\.npz: without lengths, .*; delete it"):
        rollouts.read(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [None, b"", b"\x89HDF\r\n\x1a\n torn"])
def test_collected_data_that_are_gone_or_torn_say_what_to_delete(tmp_path, content):
    if content is not None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "base.hdf5").write_bytes(content)
    with pytest.raises(ValueError, match=r"base\.hdf5.*; delete .*/data to collect"):
        data.load(build(configs.get_config("hopper,smoke"), tmp_path), "base")
