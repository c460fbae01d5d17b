"""Maze datasets on disk: HDF5 shards in D4RL's layout, and a manifest of their hashes.

Everything is a function of the seed, to the byte, however many processes share the
work: every shard draws from its own stream.
"""

import contextlib
import importlib.metadata
import json
import multiprocessing
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from diffreward.data import maze as mz
from diffreward.data.d4rl import read_hdf5
from diffreward.data.episodes import Episodes, concatenate
from diffreward.data.hdf5 import write_hdf5
from diffreward.data.maze_generate import CLEARANCE, MazeRollouts, Recipe, collect
from diffreward.data.maze_physics import make_physics
from diffreward.files import read_json, sha256, write_text

_GOALS = (None, 1, 2, 3, 4, 5, 6, 7, 8)
_MANIFEST = "manifest.json"
_VERSIONED = ("numpy", "mujoco", "gymnasium-robotics")
_MAX_AGENTS = 512
_DEFAULT_RECIPE = Recipe()


def generate(
    out_dir: str | os.PathLike[str],
    maze: str,
    goals: Iterable[int | None] = _GOALS,
    *,
    transitions: int,
    seed: int,
    recipe: Recipe = _DEFAULT_RECIPE,
    shard_rows: int = 200_000,
    processes: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Writes ``out_dir/maze``: HDF5 shards in D4RL's layout and ``manifest.json``.

    Each dataset has at least ``transitions`` rows in whole episodes. Shards that are
    there with the right hash are kept, so a killed run continues where it stopped and
    a later call may add goals. Equal arguments give equal bytes. A script that calls
    this with more than one process needs the ``if __name__ == "__main__"`` guard.

    Args:
        out_dir: folder; created.
        maze: one of ``MAZE_NAMES``.
        goals: datasets to make: None is the base, 1 to 8 the experts.
        transitions: rows per dataset.
        seed: of everything; every shard has its own stream.
        recipe: how episodes are collected.
        shard_rows: rows per file.
        processes: workers; all cores by default.
        progress: whether to show a bar.

    Returns:
        The manifest: parameters, versions, and rows, episodes, share of episodes kept
        and SHA-256 of every file.

    Raises:
        ValueError: if an argument is out of range, the folder holds data made with
            other parameters or versions, or too few episodes arrive.
    """
    goals = list(goals)
    _check(goals, transitions, seed, recipe, shard_rows)
    folder = Path(out_dir) / mz.make_maze(maze).name
    manifest: dict[str, Any] = {
        "maze": maze,
        "transitions": transitions,
        "seed": seed,
        "shard_rows": shard_rows,
        **recipe._asdict(),
        "clearance": CLEARANCE,
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONED},
        "shards": {},
    }
    if (folder / _MANIFEST).exists():
        old = _read_manifest(folder)
        for key, value in manifest.items():
            if key != "shards" and old.get(key) != value:
                raise ValueError(
                    f"{folder}: holds data with {key} {old.get(key)}, asked for {value}; "
                    "choose another folder"
                )
        manifest["shards"] = old["shards"]
    shards = [
        _Shard(folder, maze, goal, number, rows, seed, recipe)
        for goal in goals
        for number, rows in enumerate(_shard_sizes(transitions, shard_rows))
    ]
    todo = [shard for shard in shards if not _is_finished(shard, manifest["shards"])]
    folder.mkdir(parents=True, exist_ok=True)
    processes = min(processes or os.cpu_count() or 1, len(todo))
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=len(todo), desc=maze, disable=not progress))
        results = map(_write_shard, todo)
        if processes > 1:
            # Forking a process that runs JAX can deadlock; spawning cannot.
            pool = multiprocessing.get_context("spawn").Pool(processes)
            results = stack.enter_context(pool).imap_unordered(_write_shard, todo)
        for name, entry in results:
            manifest["shards"][name] = entry
            manifest["shards"] = dict(sorted(manifest["shards"].items()))
            _write_manifest(folder, manifest)
            bar.update()
    return manifest


def load(out_dir: str | os.PathLike[str], maze: str, goal: int | None) -> Episodes:
    """The base (None) or an expert (1 to 8) that :func:`generate` wrote.

    Raises:
        FileNotFoundError: if the dataset or one of its files is missing.
        ValueError: if a file differs from the manifest.
    """
    folder = Path(out_dir) / mz.make_maze(maze).name
    manifest = _read_manifest(folder)
    entries = {n: e for n, e in manifest["shards"].items() if e["goal"] == goal}
    expected = len(_shard_sizes(manifest["transitions"], manifest["shard_rows"]))
    if len(entries) < expected:
        raise FileNotFoundError(
            f"{folder}: goal {goal} has {len(entries)} of {expected} shards; "
            "run generate again to finish it"
        )
    for name, entry in entries.items():
        if (folder / name).is_file() and sha256(folder / name) != entry["sha256"]:
            raise ValueError(
                f"{folder / name}: differs from its hash in {_MANIFEST}; "
                "run generate again to replace it"
            )
    return concatenate([read_hdf5(folder / name) for name in entries])


class _Shard(NamedTuple):
    folder: Path
    maze: str
    goal: int | None
    number: int
    rows: int
    seed: int
    recipe: Recipe

    @property
    def name(self) -> str:
        role = "base" if self.goal is None else f"goal{self.goal}"
        return f"{role}-{self.number:04d}.hdf5"


def _write_shard(shard: _Shard) -> tuple[str, dict[str, Any]]:
    maze = mz.make_maze(shard.maze)
    physics = make_physics(maze)
    stream = (mz.MAZE_NAMES.index(shard.maze), shard.goal or 0, shard.number)
    rng = np.random.default_rng(np.random.SeedSequence(shard.seed, spawn_key=stream))
    goal = None if shard.goal is None else maze.goals[shard.goal - 1]
    agents = int(np.clip(shard.rows // 50, 8, _MAX_AGENTS))
    batches, rows, kept, attempted = [], 0, 0, 0
    while rows < shard.rows:
        rollouts = collect(maze, physics, rng, agents, goal, shard.recipe)
        attempted += agents
        kept += int((rollouts.lengths > 0).sum())
        # Ten spare, so that bad luck in a small first batch is not an error.
        if kept < 0.02 * attempted - 10:
            raise ValueError(
                f"{shard.folder / shard.name}: {kept} of {attempted} episodes reached "
                f"their goal in {shard.recipe.max_steps} steps without scraping a "
                "wall; raise max_steps or lower action_noise and frame_skip"
            )
        batches.append(_flatten(rollouts, shard.rows - rows))
        rows += len(batches[-1]["rewards"])
    arrays = {key: np.concatenate([b[key] for b in batches]) for key in batches[0]}
    write_hdf5(
        shard.folder / shard.name,
        arrays,
        {"maze": shard.maze, "seed": shard.seed, **shard.recipe._asdict()},
    )
    return shard.name, {
        "goal": shard.goal,
        "rows": rows,
        "episodes": int(arrays["timeouts"].sum()),
        "kept_share": round(kept / attempted, 4),
        "sha256": sha256(shard.folder / shard.name),
    }


def _flatten(rollouts: MazeRollouts, rows: int) -> dict[str, np.ndarray]:
    """Rows of the first episodes that together have at least ``rows`` rows."""
    states, actions, goals, lengths = rollouts
    enough = np.searchsorted(np.cumsum(lengths), rows) + 1
    lengths = np.where(np.arange(len(lengths)) < enough, lengths, 0)
    step_of = np.arange(actions.shape[1])
    inside = step_of < lengths[:, None]
    goal = np.repeat(goals, lengths, axis=0)
    observations = states[:, :-1][inside]
    return {
        "observations": observations,
        "actions": actions[inside],
        "rewards": mz.true_reward(states[:, 1:][inside], goal),
        # The task itself never ends: only the recording does.
        "terminals": np.zeros(len(goal), bool),
        "timeouts": (step_of == lengths[:, None] - 1)[inside],
        "infos/goal": goal,
        "infos/qpos": observations[:, :2],
        "infos/qvel": observations[:, 2:],
    }


def _check(
    goals: list[int | None], transitions: int, seed: int, recipe: Recipe, shard_rows: int
) -> None:
    for goal in goals:
        if goal not in _GOALS:
            raise ValueError(f"generate: goal {goal!r} is not None or in 1 to 8")
    least = {"transitions": 1, "seed": 0, "shard_rows": 1, "frame_skip": 1, "hold": 0}
    least |= {"max_steps": 1, "action_noise": 0}
    given = {"transitions": transitions, "seed": seed, "shard_rows": shard_rows}
    for name, value in {**given, **recipe._asdict()}.items():
        if not value >= least[name]:
            raise ValueError(f"generate: {name} {value} must be at least {least[name]}")


def _shard_sizes(transitions: int, shard_rows: int) -> list[int]:
    return [
        min(shard_rows, transitions - start) for start in range(0, transitions, shard_rows)
    ]


def _is_finished(shard: _Shard, entries: dict[str, Any]) -> bool:
    path = shard.folder / shard.name
    return (
        shard.name in entries
        and path.is_file()
        and sha256(path) == entries[shard.name]["sha256"]
    )


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / _MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; run generate first")
    manifest = read_json(path)
    if not isinstance(manifest, dict):
        raise ValueError(f"{path} is no manifest; delete it and run generate again")
    return manifest


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    write_text(folder / _MANIFEST, json.dumps(manifest, indent=1) + "\n")
