"""Datasets by name: how sources are spelled, and D4RL's addresses and references."""

import ast
import importlib.util
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffreward.data.d4rl import read_hdf5, step_limit
from diffreward.data.download import check_digest, download
from diffreward.data.episodes import Episodes
from diffreward.data.locomotion import LOCOMOTION
from diffreward.data.ogbench import read_ogbench
from diffreward.data.robomimic import is_robomimic, read_robomimic
from diffreward.files import read_text, recorded
from diffreward.names import choose

_ACTION_TOLERANCE = 1e-3


SOURCES = ("d4rl", "minari", "ogbench", "collect")


class D4RLDataset(NamedTuple):
    """One dataset of D4RL and the returns that score 0 and 100 in it."""

    url: str
    random_return: float
    expert_return: float


def d4rl_registry() -> dict[str, D4RLDataset]:
    """The locomotion datasets, and everything the ``d4rl`` package lists if installed.

    The package's table is read as text: importing it would need MuJoCo 2.1.
    """
    known = {
        name: D4RLDataset(url, task.random_return, task.expert_return)
        for task in LOCOMOTION.values()
        for name, url in task.d4rl.items()
    }
    return _installed() | known


def _installed() -> dict[str, D4RLDataset]:
    spec = importlib.util.find_spec("d4rl")  # does not import it
    if spec is None or not spec.submodule_search_locations:
        return {}
    path = Path(spec.submodule_search_locations[0]) / "infos.py"
    tables: dict[str, dict] = {}
    for node in ast.parse(read_text(path)).body if path.exists() else []:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                tables[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue  # not a plain table
    low, high = tables.get("REF_MIN_SCORE", {}), tables.get("REF_MAX_SCORE", {})
    return {
        name: D4RLDataset(url, float(low[name]), float(high[name]))
        for name, url in tables.get("DATASET_URLS", {}).items()
        if name in low and name in high
    }


def load_d4rl(name: str, folder: str | os.PathLike[str] | None = None) -> Episodes:
    """Reads a dataset from ``folder`` or D4RL's cache, or downloads it there.

    Args:
        name: ``hopper-medium-replay-v2`` and the like.
        folder: where the file lies; ``$D4RL_DATASET_DIR`` or ``~/.d4rl/datasets`` by
            default.

    Raises:
        ValueError: for an unknown name, or a file that is not what it should be.
        ConnectionError: if the file is missing and cannot be downloaded.
    """
    registry = d4rl_registry()
    family = [n for n in registry if n.split("-")[0] == name.split("-")[0]]
    choose("D4RL dataset", name, family or registry)
    limit = step_limit(name)
    cache = os.environ.get("D4RL_DATASET_DIR", "~/.d4rl/datasets")
    folder = Path(cache if folder is None else folder).expanduser()
    url = registry[name].url
    names = (url.rsplit("/", 1)[-1], f"{name}.hdf5")
    path = next((folder / n for n in names if (folder / n).is_file()), None)
    if path is None:
        path = download(url, folder / names[0], check=lambda p: read_hdf5(p, limit=limit))
    with recorded() as read:
        episodes = read_hdf5(path, limit=limit)
    check_digest(path, read[path])
    return check_task(episodes, task_of(name))


def task_of(name: str) -> str | None:
    """The locomotion task a dataset belongs to by its name, if any."""
    found = re.match(r"[a-z0-9]+", name)
    return found[0] if found and found[0] in LOCOMOTION else None


def check_task(episodes: Episodes, task: str | None) -> Episodes:
    """The episodes, if they fit the shapes of ``task`` and its actions, [-1, 1].

    Raises:
        ValueError: naming the source and both shapes, or the row.
    """
    if task is None:
        return episodes
    shapes = episodes.observations.shape[1], episodes.actions.shape[1]
    want = LOCOMOTION[task].obs_dim, LOCOMOTION[task].act_dim
    if shapes != want:
        fits = [n for n, t in LOCOMOTION.items() if (t.obs_dim, t.act_dim) == shapes]
        raise ValueError(
            f"{episodes.source}: {shapes[0]} observations and {shapes[1]} actions per "
            f"row, but {task} has {want[0]} and {want[1]}"
            + (f"; this looks like {' or '.join(fits)}" if fits else "")
        )
    largest = np.abs(episodes.actions).max(axis=1)
    bad = np.flatnonzero(largest > 1 + _ACTION_TOLERANCE)
    if len(bad):
        raise ValueError(
            f"{episodes.source}: actions: row {bad[0]} holds {largest[bad[0]]:g} "
            f"({len(bad)} such rows), but those of {task} lie in [-1, 1]; rescale them"
        )
    return episodes


def source_task(spec: str) -> str | None:
    """The locomotion task that a source belongs to by its name, if any.

    Tasks may share their shapes (halfcheetah and walker2d do), so that the data alone do
    not tell.
    """
    kind, rest = parse_source(spec)
    if kind == "d4rl":
        return task_of(rest)
    parts = rest.split("/") if kind in ("collect", "minari") else []
    return next((part for part in parts if part in LOCOMOTION), None)


def parse_source(spec: str) -> tuple[str, str]:
    """Splits ``d4rl:NAME``, ``minari:ID``, ``ogbench:NAME``, ``collect:TASK/KIND``.

    Paths of D4RL's and robomimic's ``.hdf5`` and OGBench's ``.npz`` files are sources, too;
    see :func:`read_file`.

    Raises:
        ValueError: if it is none of them.
    """
    kind, colon, rest = spec.partition(":")
    if colon and kind in SOURCES and rest:
        return kind, rest
    if spec.partition("#")[0].endswith((".hdf5", ".h5", ".npz")):
        return "file", spec
    raise ValueError(
        f"unknown data source {spec!r}; write d4rl:NAME, minari:ID, ogbench:NAME, "
        "collect:TASK/KIND or the path of an .hdf5 or .npz file"
    )


def read_file(path: str | Path) -> Episodes:
    """Episodes of a file: OGBench's layout for ``.npz``, else robomimic's or D4RL's.

    Args:
        path: of the file. The arrays that make an observation of robomimic may stand
            behind it: ``lift.hdf5#object+robot0_eef_pos``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file and what is wrong with it.
    """
    path = Path(path).expanduser()
    name, _, chosen = path.name.partition("#")
    parts = tuple(filter(None, chosen.split("+")))
    if parts and not path.exists():
        path = path.with_name(name)
    else:
        parts = ()
    if path.suffix == ".npz":
        if parts:
            raise ValueError(f"{path}: OGBench's observations have no parts to choose from")
        return read_ogbench(path)
    if parts or is_robomimic(path):
        return read_robomimic(path, parts=parts)
    return read_hdf5(path)
