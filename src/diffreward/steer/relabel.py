"""Offline datasets whose rewards are the extracted ones, written for other libraries."""

import io
import json
import os
from pathlib import Path
from typing import get_args

import h5py
import jax
import jax.numpy as jnp
import numpy as np

from diffreward.data import (
    Episodes,
    Normaliser,
    map_batches,
    normalise,
    transitions,
    write_hdf5,
)
from diffreward.files import write_bytes, write_text, writing
from diffreward.names import choose
from diffreward.steer.stepwise import Share, ValueFn

MINARI_VERSION = "0.5.3"
"""Of the layout that is written."""


def relabel(
    episodes: Episodes,
    value_fn: ValueFn,
    normaliser: Normaliser,
    window: int,
    *,
    share: Share = "last",
    batch_size: int = 1024,
) -> Episodes:
    """The same episodes with extracted rewards in place of their own.

    An episode's rewards are those of ``make_step_reward``: they add up to the values of
    its windows over the window's length. Episodes shorter than a window get zeros.

    Args:
        episodes: what to relabel.
        value_fn: value of one clean, normalised window.
        normaliser: of ``[action, observation]``.
        window: steps per window.
        share: who is credited with a window.
        batch_size: windows per evaluation.

    Raises:
        ValueError: if no episode is as long as a window, or for an unknown share.
    """
    choose("share", share, get_args(Share))
    rows = normalise(normaliser, transitions(episodes))
    counts = np.maximum(episodes.lengths - window + 1, 0)
    if not counts.any():
        raise ValueError(
            f"{episodes.source}: the longest episode has {episodes.lengths.max()} steps, "
            f"less than a window of {window}; use a reward of shorter windows"
        )
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    first = np.repeat(episodes.starts, counts) + within
    evaluate = jax.jit(jax.vmap(value_fn))
    cut = lambda starts: jnp.asarray(rows[starts[:, None] + np.arange(window)])
    values = map_batches(lambda starts: evaluate(cut(starts)), batch_size, first)

    rewards = np.zeros(len(rows), np.float32)
    if share == "last":
        rewards[first + window - 1] = values / window
    else:
        for k in range(window):
            np.add.at(rewards, first + k, values / window**2)
    source = f"{episodes.source} (extracted rewards)"
    return episodes._replace(rewards=rewards, source=source)


def write_d4rl(
    path: str | os.PathLike[str],
    episodes: Episodes,
    *,
    env_rewards: np.ndarray | None = None,
    about: dict[str, str | int | float] | None = None,
) -> None:
    """Writes one HDF5 file in D4RL's layout.

    Args:
        path: of the file.
        episodes: what to write.
        env_rewards: the environment's own rewards, kept under ``env_rewards``.
        about: attributes of the file.
    """
    arrays = {
        "observations": episodes.observations,
        "actions": episodes.actions,
        "rewards": episodes.rewards,
        "terminals": episodes.terminals,
        "timeouts": episodes.timeouts,
    }
    if env_rewards is not None:
        arrays["env_rewards"] = env_rewards
    write_hdf5(Path(path), arrays, {"source": episodes.source, **(about or {})})


def write_minari(
    root: str | os.PathLike[str],
    dataset_id: str,
    episodes: Episodes,
    *,
    description: str = "",
) -> Path:
    """Writes a dataset that ``minari`` and ``data.load_minari`` read.

    Minari has one observation more than actions per episode. The recordings here end
    with an action, so the last observation is repeated; learners that bootstrap from
    the final observation of a truncated episode should know.

    Args:
        root: of all datasets, as in ``$MINARI_DATASETS_PATH``.
        dataset_id: ``group/name-v0`` and the like.
        episodes: what to write.
        description: for people.

    Returns:
        The folder of the data.

    Raises:
        ValueError: if there is a dataset of that name.
    """
    final = Path(root) / dataset_id / "data"
    if final.exists():
        raise ValueError(f"{final}: already exists; choose another name or delete it")
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for number in range(len(episodes.starts)):
            _write_episode(file.create_group(f"episode_{number}"), episodes, number)
    metadata = {
        "dataset_id": dataset_id,
        "description": description,
        "data_format": "hdf5",
        "minari_version": MINARI_VERSION,
        "total_episodes": len(episodes.starts),
        "total_steps": len(episodes.rewards),
        "observation_space": _box(episodes.observations),
        "action_space": _box(episodes.actions),
    }
    with writing(final, replace=False) as made:
        made.mkdir()
        write_bytes(made / "main_data.hdf5", stream.getvalue())
        write_text(made / "metadata.json", json.dumps(metadata, indent=2) + "\n")
    return final


def _write_episode(group: h5py.Group, episodes: Episodes, number: int) -> None:
    start, steps = episodes.starts[number], episodes.lengths[number]
    rows = slice(start, start + steps)
    observations = episodes.observations[rows]
    group.attrs["id"] = number
    group.attrs["total_steps"] = int(steps)
    columns = {
        "observations": np.concatenate([observations, observations[-1:]]),
        "actions": episodes.actions[rows],
        "rewards": episodes.rewards[rows],
        "terminations": episodes.terminals[rows],
        "truncations": episodes.timeouts[rows],
    }
    for name, column in columns.items():
        group.create_dataset(name, data=column)


def _box(x: np.ndarray) -> str:
    """Minari's text for an unbounded space of vectors like the rows of ``x``."""
    size = x.shape[1]
    limits = {"low": [-np.inf] * size, "high": [np.inf] * size}
    return json.dumps({"type": "Box", "dtype": str(x.dtype), "shape": [size], **limits})
