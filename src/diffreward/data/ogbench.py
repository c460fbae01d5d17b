"""OGBench's datasets (Park et al., 2025): trajectories of states in ``.npz`` files.

A trajectory of T transitions stands as T + 1 rows. ``terminals`` marks its last row, which
is the state where it ends: the action beside it was never taken. That is an end of the
recording, not of a task. Files have no rewards, unless someone added them. In the package's
compact form ``valids`` is 0 in those rows, and ``terminals`` marks the row before as well.
"""

import os
from pathlib import Path

import numpy as np

from diffreward.data.arrays import read_arrays
from diffreward.data.episodes import Episodes
from diffreward.files import FileValueError

_NEEDED = ("observations", "actions", "terminals")


def is_ogbench(arrays: dict[str, np.ndarray]) -> bool:
    """Whether arrays are named as OGBench names them."""
    return {"observations", "actions"} <= arrays.keys()


def load_ogbench(name: str, folder: str | Path | None = None) -> Episodes:
    """Reads a dataset from ``folder``, or OGBench's own cache.

    Args:
        name: ``pointmaze-medium-navigate-v0`` and the like; ``-val`` behind it for the
            validation part.
        folder: where ``NAME.npz`` lies; ``~/.ogbench/data`` by default.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: naming the file and what is wrong with it.
    """
    root = Path("~/.ogbench/data" if folder is None else folder).expanduser()
    path = root / f"{name}.npz"
    if os.sep in name or not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such dataset; download it with the ogbench package, or put it "
            "there"
        )
    return read_ogbench(path)


def read_ogbench(path: str | Path) -> Episodes:
    """Reads a file of OGBench; rewards that it does not have are zero.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file and what is wrong with it.
    """
    return episodes_of_ogbench(read_arrays(path), path)


def episodes_of_ogbench(arrays: dict[str, np.ndarray], path: str | Path) -> Episodes:
    """Episodes of the arrays of a file; see :func:`read_ogbench`."""
    if missing := [key for key in _NEEDED if key not in arrays]:
        raise FileValueError(f"{path}: no {missing[0]}; is it a dataset of OGBench?")
    if "next_observations" in arrays:
        raise FileValueError(
            f"{path}: rows are transitions with next_observations, which is not the layout "
            "that OGBench saves; give the file as downloaded"
        )
    observations, actions, ends = (np.asarray(arrays[key]) for key in _NEEDED)
    name, end = ("terminals", 1) if "valids" not in arrays else ("valids", 0)
    ends, rewards = np.asarray(arrays[name]), arrays.get("rewards")
    rows = len(observations) if observations.ndim else 0
    flags = ends[:, 0] if ends.ndim == 2 and ends.shape[1] == 1 else ends
    if rows < 2 or flags.shape != (rows,) or actions.shape[:1] != (rows,):
        raise FileValueError(
            f"{path}: observations, actions and {name} should have as many rows; they "
            f"have the shapes {observations.shape}, {actions.shape}, {ends.shape}"
        )
    if not np.isin(flags, (0, 1)).all() or flags[-1] != end:
        raise FileValueError(
            f"{path}: {name} should be 0 or 1, and {end} in the last row, where the last "
            "trajectory ends"
        )
    if rewards is not None and rewards.shape[:1] != (rows,):
        raise FileValueError(f"{path}: rewards: shape {rewards.shape}, expected ({rows},)")
    last = flags == end
    moves = ~last
    timeouts = np.roll(last, -1)
    if (last & np.roll(last, 1))[1:].any() or last[0]:
        raise FileValueError(f"{path}: a trajectory has a single row, so no transition")
    return Episodes.from_arrays(
        observations[moves],
        actions[moves],
        rewards=None if rewards is None else rewards[moves],
        terminals=np.zeros(int(moves.sum()), bool),
        timeouts=timeouts[moves],
        source=str(path),
    )
