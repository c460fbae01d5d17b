"""Locomotion data without training: the shipped policies act again.

``snapshots/<task>/index.json`` lists the policies saved while one SAC agent was trained,
with their scores, the training budget and the command (``experiments/collect.py``).
"""

import multiprocessing
import os
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffreward.data.locomotion import LOCOMOTION, Stream, act_in
from diffreward.data.policies import load_policy
from diffreward.files import FileValueError, read_json
from diffreward.names import choose

KINDS = ("medium-replay", "medium", "expert")
_PARTS = 8


def snapshot_folder(task: str) -> Path:
    """Where the shipped policies of a task lie."""
    return Path(str(resources.files("diffreward.data"))) / "snapshots" / task


def read_index(task: str, folder: Path | None = None) -> dict[str, Any]:
    """Policies of a task in the order of training: file, step, return, score.

    Raises:
        ValueError: if no policies are there, or the index is damaged.
    """
    path = (folder or snapshot_folder(task)) / "index.json"
    if not path.is_file():
        raise ValueError(
            f"{path}: no policies for {task!r}; there are some for: "
            f"{', '.join(t for t in LOCOMOTION if snapshot_folder(t).is_dir()) or 'none'}; "
            "use other data (d4rl:, minari:, a path), or train one (experiments/collect.py)"
        )
    try:
        index = read_json(path)
        files = [policy["file"] for policy in index["policies"]]
        missing = {index["medium"], index["expert"]} - set(files)
    except FileValueError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: not an index of policies ({type(error).__name__}: {error}); install "
            "the package again"
        ) from None
    if missing:
        raise ValueError(f"{path}: {missing.pop()!r} is not among its policies: {files}")
    return index


def collect_again(
    task: str,
    kind: str,
    *,
    transitions: int,
    seed: int,
    processes: int | None = None,
    folder: Path | None = None,
    progress: Callable[[int], Any] = lambda rows: None,
) -> Stream:
    """Lets the shipped policies act; whole episodes, in the order of training.

    ``medium-replay`` gives every policy up to the first medium one an equal share, as
    the replay buffer of the agent held them; ``medium`` is the first medium policy
    alone, ``expert`` the best one. The result depends on the arguments alone, not on the
    number of processes.

    Raises:
        ValueError: for an unknown kind, or a task without policies.
    """
    choose("kind of data", kind, KINDS)
    index = read_index(task, folder)
    files = [p["file"] for p in index["policies"]]
    if kind == "medium-replay":
        files = files[: files.index(index["medium"]) + 1]
    else:
        files = [index[kind]] * _PARTS
    share = -(-transitions // len(files))
    where = folder or snapshot_folder(task)
    jobs = [
        _Job(task, where / file, share, (seed, KINDS.index(kind), number))
        for number, file in enumerate(files)
    ]
    streams = []
    processes = min(processes or os.cpu_count() or 1, len(jobs))
    if processes > 1:
        # Forking a process that runs JAX can deadlock; spawning cannot.
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            for stream in pool.imap(_run, jobs):
                streams.append(stream)
                progress(len(stream["rewards"]))
    else:
        for stream in map(_run, jobs):
            streams.append(stream)
            progress(len(stream["rewards"]))
    return {key: np.concatenate([s[key] for s in streams]) for key in streams[0]}


class _Job(NamedTuple):
    task: str
    policy: Path
    steps: int
    seed: tuple[int, ...]


def _run(job: _Job) -> Stream:
    policy, _ = load_policy(job.policy)
    try:
        return act_in(job.task, policy, seed=job.seed, steps=job.steps)
    except ValueError as error:
        raise ValueError(f"{job.policy}: {error}") from error
