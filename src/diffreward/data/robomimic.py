"""robomimic's demonstrations (Mandlekar et al., 2021): ``data/demo_0/{actions, obs}``.

Every demonstration has a row of ``actions`` and of each array of ``obs`` per step. As
``dones`` may mark success as well as the end, demonstrations end where their rows do, and
no end is one of the task.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffreward.data.episodes import Episodes
from diffreward.data.hdf5 import Hdf5, reading_hdf5
from diffreward.files import FileValueError

ROOT = "data"


def is_robomimic(path: str | Path) -> bool:
    """Whether an HDF5 file holds demonstrations in this layout.

    Raises:
        ValueError: if it is no HDF5 file.
    """
    with reading_hdf5(path) as file:
        return file.has(ROOT) and file.is_group(ROOT) and bool(_demonstrations(file))


def read_robomimic(path: str | Path, *, parts: Sequence[str] = ()) -> Episodes:
    """Reads all demonstrations of a file, in the order of their numbers.

    Args:
        path: of the file.
        parts: arrays of ``obs`` that make an observation, in the order wanted; by default
            all that are vectors, sorted by name, if there are no pictures among them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file, the demonstration and what is wrong with it.
    """
    columns: dict[str, list[np.ndarray]] = {}
    with reading_hdf5(path) as file:
        names = _demonstrations(file) if file.has(ROOT) and file.is_group(ROOT) else []
        if not names:
            raise FileValueError(f"{path}: no {ROOT}/demo_0; is it a file of robomimic?")
        for name in names:
            found = _demonstration(file, f"{ROOT}/{name}", parts)
            for key, array in found.items():
                columns.setdefault(key, []).append(array)
    for key, arrays in columns.items():
        if len({array.shape[1:] for array in arrays}) > 1:
            raise FileValueError(f"{path}: {key} of demonstrations differ in shape")
    joined = {key: np.concatenate(arrays) for key, arrays in columns.items()}
    return Episodes.from_arrays(**joined, source=str(path))  # pyright: ignore


def _demonstrations(file: Hdf5) -> list[str]:
    names = [n for n in file.names(ROOT) if re.fullmatch(r"demo_\d{1,9}", n)]
    return sorted(names, key=lambda name: int(name.removeprefix("demo_")))


def _demonstration(file: Hdf5, name: str, parts: Sequence[str]) -> dict[str, np.ndarray]:
    if not file.has(f"{name}/obs"):
        raise FileValueError(
            f"{file.path}: {name} has no obs, only states of the simulator; make them with "
            "robomimic's dataset_states_to_obs"
        )
    known = sorted(file.names(f"{name}/obs"))
    if missing := [part for part in parts if part not in known]:
        raise FileValueError(
            f"{file.path}: {name}/obs has no {missing[0]}; it has {', '.join(known)}"
        )
    actions = _rows(file, f"{name}/actions")
    observations = [_rows(file, f"{name}/obs/{part}") for part in parts or known]
    if not observations:
        raise FileValueError(f"{file.path}: {name}/obs is empty")
    rewards = _rows(file, f"{name}/rewards") if file.has(f"{name}/rewards") else None
    for array in (*observations, *([] if rewards is None else [rewards])):
        if len(array) != len(actions) or not len(actions):
            raise FileValueError(
                f"{file.path}: {name} has {len(actions)} actions and {len(array)} rows of "
                "another array"
            )
    if rewards is not None and rewards.shape[1] != 1:
        raise FileValueError(f"{file.path}: {name}/rewards has shape {rewards.shape}")
    ends = np.zeros(len(actions), bool)
    ends[-1] = True
    return {
        "observations": np.concatenate(observations, axis=1),
        "actions": actions,
        "rewards": np.zeros(len(actions)) if rewards is None else rewards[:, 0],
        "terminals": np.zeros(len(actions), bool),
        "timeouts": ends,
    }


def _rows(file: Hdf5, name: str) -> np.ndarray:
    """An array as a vector per step."""
    array = file.array(name)
    if not 1 <= array.ndim <= 2:
        raise FileValueError(
            f"{file.path}: {name} is shaped {array.shape}, no vector per step; name the "
            "arrays that are an observation behind the path: #object+robot0_eef_pos"
        )
    return array[:, None] if array.ndim == 1 else array
