"""Minari datasets on disk, read without the ``minari`` package."""

import importlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

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
        stored = "unknown"
        if (path / "metadata.json").is_file():
            stored = json.loads((path / "metadata.json").read_text()).get(
                "data_format", stored
            )
        raise ValueError(
            f"{file_path}: no such file (data format: {stored}); only Minari's HDF5 "
            "format can be read"
        )
    parts: dict[str, list[np.ndarray]] = {}
    try:
        with h5py.File(file_path, "r") as file:
            numbers = sorted(int(str(n).removeprefix("episode_")) for n in file)
            for number in numbers:
                episode = _episode(file_path, file, f"episode_{number}")
                for key, array in episode.items():
                    parts.setdefault(key, []).append(array)
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(
            f"{file_path}: not a readable Minari file (truncated or another format): "
            f"{error}"
        ) from error
    if not parts:
        raise ValueError(f"{file_path}: no episodes")
    arrays = {key: np.concatenate(columns) for key, columns in parts.items()}
    return Episodes.from_arrays(**arrays, source=str(file_path))


def _episode(path: Path, file: Any, name: str) -> dict[str, np.ndarray]:
    group = file[name]
    if not isinstance(group["observations"], h5py.Dataset):
        raise ValueError(
            f"{path}: {name}/observations: a group of "
            f"{', '.join(group['observations'])}; only plain arrays can be read"
        )
    actions = np.asarray(group["actions"][()])
    observations = np.asarray(group["observations"][()])
    steps = len(actions)
    if len(observations) not in (steps, steps + 1):
        raise ValueError(
            f"{path}: {name}/observations: {len(observations)} rows for {steps} actions; "
            f"expected {steps + 1}"
        )
    terminals = np.array(group["terminations"][()], bool)
    timeouts = np.array(group["truncations"][()], bool) & ~terminals
    if not steps:
        raise ValueError(f"{path}: {name}: no steps")
    timeouts[-1] |= not terminals[-1]  # an episode that was simply cut off
    return {
        "observations": observations[:steps],
        "actions": actions,
        "rewards": np.asarray(group["rewards"][()]),
        "terminals": terminals,
        "timeouts": timeouts,
    }
