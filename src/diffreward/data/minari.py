"""Minari datasets on disk, read without the ``minari`` package."""

import importlib
import importlib.util
import json
import os
import re
from pathlib import Path

import h5py
import numpy as np

from diffreward.data.episodes import Episodes


def load_minari(dataset_id: str, folder: str | os.PathLike[str] | None = None) -> Episodes:
    """Reads a local Minari dataset, or fetches it with ``minari`` if that is installed.

    A Minari episode of T actions has T + 1 observations; the last one is left out.

    Args:
        dataset_id: ``mujoco/hopper/expert-v0`` and the like.
        folder: root of the datasets; ``$MINARI_DATASETS_PATH`` or
            ``~/.minari/datasets`` by default.

    Raises:
        FileNotFoundError: if the dataset is not there and cannot be fetched.
        ValueError: naming the file and what is wrong with it.
    """
    cache = os.environ.get("MINARI_DATASETS_PATH", "~/.minari/datasets")
    root = Path(cache if folder is None else folder).expanduser()
    path = root / dataset_id / "data"
    if not path.is_dir():
        if importlib.util.find_spec("minari") is None:
            raise FileNotFoundError(
                f"{path}: no such dataset; pip install -e '.[minari]' to fetch "
                f"{dataset_id}, or put it there"
            )
        os.environ["MINARI_DATASETS_PATH"] = str(root)
        try:
            importlib.import_module("minari").download_dataset(dataset_id)
        except Exception as error:  # noqa: BLE001 - whatever the network layer raises
            raise FileNotFoundError(
                f"{path}: no such dataset, and minari could not fetch it: {error}"
            ) from error
    return read_minari(path)


def read_minari(path: str | os.PathLike[str]) -> Episodes:
    """Reads the ``data`` folder of one dataset.

    Raises:
        ValueError: naming the file and what is wrong with it.
    """
    path = Path(path)
    file_path = path / "main_data.hdf5"
    if not file_path.is_file():
        raise ValueError(
            f"{file_path}: no such file (data format: {_stored_format(path)}); only "
            "Minari's HDF5 format can be read"
        )
    parts: dict[str, list[np.ndarray]] = {}
    try:
        with h5py.File(file_path, "r") as file:
            for number in _episode_numbers(file_path, file):
                episode = _episode(file_path, file, f"episode_{number}")
                for key, array in episode.items():
                    parts.setdefault(key, []).append(array)
    except (OSError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file_path}: not a readable Minari file (truncated or another format): "
            f"{error}"
        ) from error
    if not parts:
        raise ValueError(f"{file_path}: no episodes")
    for key in ("observations", "actions"):
        shapes = sorted({array.shape[1:] for array in parts[key]})
        if len(shapes) > 1:
            raise ValueError(
                f"{file_path}: {key}: rows of different shapes in different episodes: "
                f"{', '.join(map(str, shapes))}"
            )
    arrays = {key: np.concatenate(columns) for key, columns in parts.items()}
    return Episodes.from_arrays(**arrays, source=str(file_path))


def _stored_format(path: Path) -> str:
    """What the metadata say, as far as they can be read."""
    try:
        found = json.loads((path / "metadata.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "unknown"
    return (
        str(found.get("data_format", "unknown")) if isinstance(found, dict) else "unknown"
    )


def _episode_numbers(path: Path, file: h5py.File) -> list[int]:
    foreign = [n for n in map(str, file) if not re.fullmatch(r"episode_\d+", n)]
    if foreign:
        raise ValueError(
            f"{path}: {foreign[0]!r} is not an episode; not a Minari file (expected "
            "episode_0, episode_1, ...)"
        )
    return sorted(int(str(name).removeprefix("episode_")) for name in file)


def _episode(path: Path, file: h5py.File, name: str) -> dict[str, np.ndarray]:
    read = lambda key: _read_array(path, file, f"{name}/{key}")
    actions, observations = read("actions"), read("observations")
    steps = len(actions)
    if not steps:
        raise ValueError(f"{path}: {name}: no steps")
    if len(observations) not in (steps, steps + 1):
        raise ValueError(
            f"{path}: {name}/observations: {len(observations)} rows for {steps} actions; "
            f"expected {steps + 1}"
        )
    # Checked here: lengths that are wrong in two episodes can add up to the right sum.
    columns = {key: read(key) for key in ("rewards", "terminations", "truncations")}
    for key, column in columns.items():
        if len(column) != steps:
            raise ValueError(
                f"{path}: {name}/{key}: {len(column)} rows for {steps} actions; expected "
                f"{steps}"
            )
        if key != "rewards" and column.dtype.kind not in "biu":
            raise ValueError(f"{path}: {name}/{key}: dtype {column.dtype}, expected bool")
    terminals = columns["terminations"].astype(bool)
    timeouts = columns["truncations"].astype(bool) & ~terminals
    timeouts[-1] |= not terminals[-1]  # an episode that was simply cut off
    return {
        "observations": observations[:steps],
        "actions": actions,
        "rewards": columns["rewards"],
        "terminals": terminals,
        "timeouts": timeouts,
    }


def _read_array(path: Path, file: h5py.File, key: str) -> np.ndarray:
    """One array of at least one axis."""
    parent, _, name = key.partition("/")
    group = file[parent]
    if not isinstance(group, h5py.Group):
        raise ValueError(f"{path}: {parent}: an array, expected a group")
    item = group[name]
    if isinstance(item, h5py.Group):
        raise ValueError(
            f"{path}: {key}: a group of {', '.join(item)}; only plain arrays can be read"
        )
    if not isinstance(item, h5py.Dataset):
        raise ValueError(f"{path}: {key}: a type, expected an array")
    array = np.asarray(item[()])
    if array.ndim == 0:
        raise ValueError(f"{path}: {key}: a single value, expected one row per step")
    return array
