"""Minari datasets on disk; HDF5 storage is read without the ``minari`` package."""

import importlib
import importlib.util
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffreward.data.episodes import Episodes
from diffreward.data.hdf5 import Hdf5, reading_hdf5
from diffreward.files import FileValueError, read_json

_FLAGS = ("terminations", "truncations")


def load_minari(dataset_id: str, folder: str | os.PathLike[str] | None = None) -> Episodes:
    """Reads a local Minari dataset, or fetches it with ``minari`` if that is installed.

    A Minari episode of T actions has T + 1 observations; the last one is left out.
    Observations that are dictionaries become rows of all their arrays, in the order that
    the dataset declares, else sorted by name; or of the named ones only:
    ``D4RL/pointmaze/umaze-v2#observation+desired_goal``.

    Args:
        dataset_id: ``mujoco/hopper/expert-v0`` and the like, and behind a ``#`` the parts
            of its observations.
        folder: root of the datasets; ``$MINARI_DATASETS_PATH`` or
            ``~/.minari/datasets`` by default.

    Raises:
        FileNotFoundError: if the dataset is not there and cannot be fetched.
        ValueError: naming the file and what is wrong with it.
    """
    dataset_id, _, chosen = dataset_id.partition("#")
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
    return read_minari(path, parts=tuple(filter(None, chosen.split("+"))))


def read_minari(path: str | os.PathLike[str], *, parts: Sequence[str] = ()) -> Episodes:
    """Reads the ``data`` folder of one dataset.

    Args:
        path: of the folder.
        parts: of observations that are dictionaries, in the order wanted; see
            :func:`load_minari`.

    Raises:
        ValueError: naming the file and what is wrong with it.
    """
    path = Path(path)
    file_path = path / "main_data.hdf5"
    try:
        about = _metadata(path)
    except FileValueError:
        if file_path.is_file():
            raise
        about = {}  # what is missing is said first
    order = tuple(parts) or _declared(about)
    if file_path.is_file():
        episodes = _hdf5_episodes(file_path)
    elif about.get("data_format") in ("arrow", "parquet"):
        file_path, episodes = path, _stored_episodes(path, str(about["data_format"]))
    else:
        raise FileValueError(
            f"{file_path}: no such file (data format: "
            f"{about.get('data_format', 'unknown')}); Minari's HDF5, Arrow and Parquet "
            "formats can be read"
        )
    columns: dict[str, list[np.ndarray]] = {}
    for name, raw in episodes:
        for key, array in _episode(f"{file_path}: {name}", raw, order, bool(parts)).items():
            columns.setdefault(key, []).append(array)
    if not columns:
        raise FileValueError(f"{file_path}: no episodes")
    for key in ("observations", "actions"):
        shapes = sorted({array.shape[1:] for array in columns[key]})
        if len(shapes) > 1:
            raise FileValueError(
                f"{file_path}: {key}: rows of different shapes in different episodes: "
                f"{', '.join(map(str, shapes))}"
            )
    arrays: dict[str, Any] = {key: np.concatenate(c) for key, c in columns.items()}
    return Episodes.from_arrays(**arrays, source=str(file_path))


def _metadata(path: Path) -> dict[str, Any]:
    """What the dataset says of itself; nothing, if it was made without."""
    try:
        found = read_json(path / "metadata.json")
    except FileNotFoundError:
        return {}
    if not isinstance(found, dict):
        raise FileValueError(
            f"{path / 'metadata.json'}: {type(found).__name__}, expected an object"
        )
    return found


def _declared(about: dict[str, Any]) -> tuple[str, ...]:
    """Names of a dictionary of observations, in the order of its space."""
    space = about.get("observation_space")
    try:
        space: Any = json.loads(space) if isinstance(space, str) else space
        return tuple(map(str, space["subspaces"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()


def _hdf5_episodes(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with reading_hdf5(path) as file:
        names = file.names()
        foreign = [n for n in names if not re.fullmatch(r"episode_\d{1,18}", n)]
        if foreign:
            raise FileValueError(
                f"{path}: {foreign[0]!r} is not an episode; not a Minari file (expected "
                "episode_0, episode_1, ...)"
            )
        for name in sorted(names, key=lambda n: int(n.removeprefix("episode_"))):
            keys = ("observations", "actions", "rewards", *_FLAGS)
            yield name, {key: _tree(file, f"{name}/{key}") for key in keys}


def _tree(file: Hdf5, name: str, depth: int = 0) -> Any:
    """An array, or a dictionary of them."""
    if not file.is_group(name):
        return file.array(name)
    if depth > 3:
        raise FileValueError(f"{file.path}: {name} is nested deeper than observations are")
    return {key: _tree(file, f"{name}/{key}", depth + 1) for key in file.names(name)}


def _stored_episodes(path: Path, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Episodes of the other storages, which the package itself reads."""
    try:
        module = importlib.import_module("minari.dataset.minari_storage")
        storage = module.MinariStorage.read(path)
        for raw in storage.get_episodes(range(int(storage.total_episodes))):
            yield f"episode_{raw['id']}", raw
    except ImportError as error:
        raise FileValueError(
            f"{path}: Minari's {kind} storage is read with pip install -e '.[minari]' "
            f"({' '.join(str(error).split())})"
        ) from error
    except Exception as error:  # noqa: BLE001 - whatever pyarrow raises
        reason = " ".join(str(error).split())
        raise FileValueError(
            f"{path}: not a readable Minari dataset: {reason[:300]}"
        ) from error


def _episode(
    where: str, raw: dict[str, Any], order: Sequence[str], chosen: bool
) -> dict[str, np.ndarray]:
    observations = _rows(f"{where}/observations", raw["observations"], order, chosen)
    actions = _column(f"{where}/actions", raw["actions"])
    steps = len(actions)
    if not steps:
        raise FileValueError(f"{where}: no steps")
    if len(observations) not in (steps, steps + 1):
        raise FileValueError(
            f"{where}/observations: {len(observations)} rows for {steps} actions; expected "
            f"{steps + 1}"
        )
    # Checked here: lengths that are wrong in two episodes can add up to the right sum.
    columns = {key: _column(f"{where}/{key}", raw[key]) for key in ("rewards", *_FLAGS)}
    for key, column in columns.items():
        if len(column) != steps:
            raise FileValueError(
                f"{where}/{key}: {len(column)} rows for {steps} actions; expected {steps}"
            )
        if key != "rewards" and not np.isin(column, (0, 1)).all():
            raise FileValueError(
                f"{where}/{key}: dtype {column.dtype}, values other than 0 and 1"
            )
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


def _rows(where: str, value: Any, order: Sequence[str], chosen: bool) -> np.ndarray:
    """An array of rows; dictionaries side by side, in the given order."""
    if not isinstance(value, dict):
        if chosen:
            raise FileValueError(f"{where} has no parts to choose from, it is one array")
        return _column(where, value)
    unknown = [name for name in order if name not in value]
    if unknown or (order and not chosen and set(order) != value.keys()):
        raise FileValueError(
            f"{where} has the parts {', '.join(sorted(value))}; asked for or declared are "
            f"{', '.join(order)}"
        )
    parts = [
        _rows(f"{where}/{name}", value[name], (), False) for name in order or sorted(value)
    ]
    if not parts:
        raise FileValueError(f"{where} is an empty group")
    if len({len(part) for part in parts}) > 1 or any(part.ndim > 2 for part in parts):
        raise FileValueError(
            f"{where}: its parts have the shapes {[part.shape for part in parts]}; "
            "expected vectors, one per row"
        )
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


def _column(where: str, value: Any) -> np.ndarray:
    """One array of at least one axis."""
    if isinstance(value, dict):
        raise FileValueError(f"{where}: a group of {', '.join(value)}; expected one array")
    array = np.asarray(value)
    if array.ndim == 0 or array.dtype.kind not in "biuf":
        raise FileValueError(
            f"{where}: {array.dtype} shaped {array.shape}, expected numbers, a row per step"
        )
    return array
