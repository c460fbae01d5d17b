import re
import time

import h5py
import numpy as np
import pytest

from diffreward.data import read_hdf5, write_hdf5


def arrays(rows: int = 7) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    timeouts = np.zeros(rows, bool)
    timeouts[[2, rows - 1]] = True
    return {
        "observations": rng.normal(size=(rows, 3)),
        "actions": rng.normal(size=(rows, 2)),
        "rewards": rng.normal(size=rows),
        "terminals": np.zeros(rows, bool),
        "timeouts": timeouts,
        "infos/goal": rng.normal(size=(rows, 2)),
    }


def test_what_was_written_is_read(tmp_path):
    path, data = tmp_path / "a.hdf5", arrays()
    write_hdf5(path, data, {"seed": 3})
    episodes = read_hdf5(path)
    for key in ("observations", "actions", "rewards", "terminals", "timeouts"):
        want = data[key]
        want = want.astype(np.float32) if want.dtype.kind == "f" else want
        np.testing.assert_array_equal(getattr(episodes, key), want)
    assert episodes.lengths.tolist() == [3, 4]
    assert episodes.source == str(path)
    with h5py.File(path) as file:
        goal = file["infos/goal"]
        assert isinstance(goal, h5py.Dataset)
        assert goal.dtype == np.float32
        assert file.attrs["seed"] == 3


def test_a_plain_h5py_file_with_columns_is_read(tmp_path):
    path, data = tmp_path / "old.hdf5", arrays()
    with h5py.File(path, "w") as file:
        for key in ("observations", "actions"):
            file[key] = data[key]
        for key in ("rewards", "terminals", "timeouts"):
            file[key] = data[key][:, None]
    assert read_hdf5(path).rewards.shape == (7,)


def test_equal_content_gives_equal_bytes(tmp_path):
    first, second = tmp_path / "1.hdf5", tmp_path / "2.hdf5"
    write_hdf5(first, arrays(), {"seed": 3, "maze": "open"})
    time.sleep(1.1)  # HDF5 time stamps count whole seconds
    write_hdf5(second, dict(reversed(arrays().items())), {"maze": "open", "seed": 3})
    assert first.read_bytes() == second.read_bytes()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.hdf5"
    write_hdf5(path, arrays(), {})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_hdf5(path, {**arrays(), "zz": np.array([object()])}, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def truncated(path):
    write_hdf5(path, arrays(5000), {})
    path.write_bytes(path.read_bytes()[:40_000])


def text(path):
    path.write_text("observations,actions\n")


def keyless(path):
    write_hdf5(path, {"states": np.zeros((3, 2)), "rewards": np.zeros(3)}, {})


def grouped(path):
    data = arrays()
    write_hdf5(path, {**data, "actions": data["actions"]}, {})
    with h5py.File(path, "a") as file:
        del file["actions"]
        file.create_group("actions")["torque"] = data["actions"]


def not_finite(path):
    data = arrays()
    data["observations"][4, 1] = np.nan
    write_hdf5(path, data, {})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncated, ["not a readable HDF5 file", "truncated"]),
        (text, ["not a readable HDF5 file"]),
        (keyless, ["missing observations, actions", "has: rewards, states"]),
        (grouped, ["actions", "group"]),
        (not_finite, ["observations", "row 4"]),
    ],
)
def test_a_bad_file_is_refused_in_one_line_that_names_it(tmp_path, damage, words):
    path = tmp_path / "bad.hdf5"
    damage(path)
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        read_hdf5(path)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.hdf5 does not exist"):
        read_hdf5(tmp_path / "nowhere.hdf5")
