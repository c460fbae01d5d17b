"""Single windows of held-out episodes: where they lie, what they earn, what they gain."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.stats import spearmanr

from diffreward import data as d
from experiments.maze2d.build import ACT, Prepared, Run

SHOWN = 60
"""Episodes that are drawn."""


def by_window(
    run: Run, prepared: Prepared, values: Callable[[Array], Array], goal: np.ndarray
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Rewards of windows of the base's held-out episodes, and their progress to the goal.

    Args:
        run: of this maze.
        prepared: its data.
        values: rewards of normalised windows.
        goal: in metres.

    Returns:
        Rank correlation of reward and progress; per window the reward, the progress (by
        how many metres its last place is nearer to the goal than its first, walking) and
        the place in its middle.
    """
    size, episodes = run.window, prepared.base["test"]
    some = d.select(episodes, np.arange(min(SHOWN, len(episodes.starts))))
    w = d.make_windows(some, prepared.normaliser, horizon=size, pad=False)
    x = jax.vmap(lambda i: d.gather(w, i, size)[0])(jnp.arange(len(w.start)))
    value = np.asarray(values(x))
    places = d.unnormalise(prepared.normaliser, np.asarray(x))[:, :, ACT : ACT + 2]
    away = d.make_geodesic(run.maze, goal)
    progress = away(places[:, 0]) - away(places[:, -1])
    record = {"progress_spearman": float(spearmanr(value, progress).statistic)}
    arrays = {
        "window_reward": value,
        "window_progress": progress,
        "window_place": places[:, size // 2],
    }
    return record, {k: v.astype(np.float32) for k, v in arrays.items()}
