"""The reward of windows as a map of the maze, and how it compares with visits."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.stats import spearmanr

from diffreward import data as d
from diffreward import measures
from diffreward.reward import noised_values
from diffreward.types import Params
from experiments.maze2d.build import ACT, Prepared, Run, goal_entries

NOISE_SEED = 5
"""Of the noise that windows are shown with."""

FOUND = 0.5
"""Metres (half a cell) from the goal within which a peak has found it."""

WindowValues = Callable[[Params, Array], Array]
"""Rewards (windows,) of (parameters, normalised windows)."""


def make_window_values(run: Run) -> WindowValues:
    """Compiled reward of a batch of clean windows, at the lowest noise level."""
    told = goal_entries(run.window) if run.config.conditioned else None

    @jax.jit
    def window_values(params: Params, x: Array) -> Array:
        noise = jax.random.normal(jax.random.key(NOISE_SEED), x.shape)
        rho, least = run.window_reward.window_fn(params), jnp.zeros(1, jnp.int32)
        value = lambda x, e: noised_values(
            rho, run.model.schedule, x, least, e[None, None], pinned=told
        )
        return jax.vmap(value)(x, noise)[:, 0, 0]

    return window_values


def first_episodes(run: Run, episodes: d.Episodes) -> d.Episodes:
    """As many of them as a map is made of."""
    count = min(run.config.evaluation.map_episodes, len(episodes.starts))
    return d.select(episodes, np.arange(count))


def make_maze_grid(run: Run) -> measures.Grid:
    """Bins of the whole maze."""
    rows, columns = run.maze.walls.shape
    corner = np.array([columns, rows]) / 2
    return measures.make_grid(-corner, corner, run.config.evaluation.map_bin)


def reward_map(
    run: Run,
    normaliser: d.Normaliser,
    values: Callable[[Array], Array],
    episodes: d.Episodes,
) -> tuple[measures.Grid, np.ndarray]:
    """Reward of every bin of the maze, from the windows through it, smoothed.

    Every point of a window gets the window's value (winsorised as in the paper). A bin
    gets ``map_quantile`` of its points' values, what the best moves there are worth: a
    mean over all moves of the base also counts those that only pass through. Bins with
    too few points are NaN.
    """
    e, size = run.config.evaluation, run.window
    w = d.make_windows(episodes, normaliser, horizon=size, pad=False, balance="window")
    x = jax.vmap(lambda i: d.gather(w, i, size)[0])(jnp.arange(len(w.start)))
    value = np.asarray(values(x))
    value = np.clip(value, *np.percentile(value, [0.5, 99.5])).repeat(size)
    points = d.unnormalise(normaliser, np.asarray(x))[:, :, ACT : ACT + 2]
    grid = make_maze_grid(run)
    raw = measures.value_map(
        grid,
        points.reshape(-1, 2),
        value,
        min_count=e.map_min_count,
        quantile=e.map_quantile or None,
    )
    return grid, measures.smooth_map(raw, e.map_smoothing)


def compare(
    run: Run,
    prepared: Prepared,
    values: Callable[[Array], Array],
    expert_episodes: d.Episodes,
    goal: np.ndarray,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The map over the base's held-out windows beside the log ratio of visits.

    Args:
        run: of this maze.
        prepared: its data.
        values: rewards of normalised windows.
        expert_episodes: held-out ones of the goal's expert.
        goal: in metres.

    Returns:
        Where the peaks of both are and rank correlations; both maps with their edges in
        metres.
    """
    e = run.config.evaluation
    base, expert = (
        first_episodes(run, x) for x in (prepared.base["test"], expert_episodes)
    )
    grid, shown = reward_map(run, prepared.normaliser, values, base)
    ratio = measures.log_visit_ratio(
        *(measures.visits(grid, x.observations[:, :2]) for x in (expert, base)),
        min_count=e.map_min_count,
        sigma=e.map_smoothing,
    )
    both = np.isfinite(shown) & np.isfinite(ratio)
    peak = measures.find_peak(grid, shown, goal, cell=1.0)
    counted = measures.find_peak(grid, ratio, goal, cell=1.0)
    distance = d.make_geodesic(run.maze, goal)(grid.centres[both])
    record = {
        "peak_distance": peak.distance,
        "recovered": peak.distance <= FOUND,
        "top_cells_hit": peak.top_cells_hit,
        "counted_peak_distance": counted.distance,
        "counted": counted.distance <= FOUND,
        "map_spearman": float(spearmanr(shown[both], ratio[both]).statistic),
        "geodesic_spearman": float(spearmanr(shown[both], -distance).statistic),
        "data_geodesic_spearman": float(spearmanr(ratio[both], -distance).statistic),
    }
    arrays = {
        "map": shown,
        "visit_ratio": ratio,
        "x_edges": grid.x_edges,
        "y_edges": grid.y_edges,
    }
    return record, arrays
