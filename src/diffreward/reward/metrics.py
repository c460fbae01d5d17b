"""Measures of a reward against data, models and maps. NumPy in, numbers out."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import gaussian_filter
from scipy.stats import binned_statistic_2d

from diffreward.diffusion import free_entries, hold, pin, q_sample
from diffreward.reward.alignment import alignment_loss
from diffreward.reward.objective import SCORE, Objective
from diffreward.reward.pair import Pair
from diffreward.reward.values import noised_values
from diffreward.types import Mask, PRNGKey, RewardFn, Sample


def variance_by_level(
    reward_fn: RewardFn,
    pair: Pair,
    key: PRNGKey,
    x_0: Sample,
    *,
    objective: Objective = SCORE,
    pinned: Mask | None = None,
    mask: Mask | None = None,
) -> tuple[Float[Array, " num_steps"], Float[Array, " num_steps"]]:
    """Unexplained and total squared relative score of one trajectory, per level.

    The ratio of their means over held-out trajectories is the fraction of variance
    unexplained: 0 for a reward whose gradient is the difference, 1 for no reward.
    """
    condition = hold(pinned, x_0)
    counted = free_entries(x_0.shape, pinned, mask)

    def level(t: Array, noise_key: Array) -> tuple[Array, Array]:
        eps = jax.random.normal(noise_key, x_0.shape)
        x_t = pin(q_sample(pair.schedule, x_0, t, eps), condition)
        part = objective.align(pair, x_t, t)
        _, metrics = alignment_loss(
            reward_fn, part.point, t, part.target, weight=part.weight, mask=counted
        )
        return metrics["residual"], metrics["signal"]

    levels = jnp.arange(pair.schedule.num_steps)
    return jax.vmap(level)(levels, jax.random.split(key, levels.size))


def noised_reward(
    reward_fn: RewardFn,
    pair: Pair,
    key: PRNGKey,
    x_0: Sample,
    *,
    pinned: Mask | None = None,
    num_noises: int = 1,
) -> Float[Array, " num_steps"]:
    """Mean of rho(x_t, t) over noises of one clean trajectory, per level.

    The offset of a reward is free at every level, so compare trajectories at equal
    levels, or the mean over all levels; both leave the offsets constant.
    """
    levels = jnp.arange(pair.schedule.num_steps)
    keys = jax.random.split(key, (levels.size, num_noises))
    draw = jax.vmap(jax.vmap(lambda k: jax.random.normal(k, x_0.shape)))
    eps = draw(keys)
    values = noised_values(reward_fn, pair.schedule, x_0, levels, eps, pinned=pinned)
    return values.mean(1)


class Grid(NamedTuple):
    """Square bins over a rectangle, in the units of the positions."""

    x_edges: np.ndarray
    y_edges: np.ndarray

    @property
    def centres(self) -> np.ndarray:
        """Bin centres, shaped (columns, rows, 2)."""
        x, y = ((e[:-1] + e[1:]) / 2 for e in self)
        return np.stack(np.meshgrid(x, y, indexing="ij"), -1)


def make_grid(low: np.ndarray, high: np.ndarray, bin_size: float) -> Grid:
    """Bins of the given size that cover the box from ``low`` to ``high``."""
    counts = np.ceil((np.asarray(high) - low) / bin_size - 1e-9).astype(int)
    return Grid(*(low[i] + bin_size * np.arange(counts[i] + 1) for i in range(2)))


def visits(grid: Grid, positions: np.ndarray) -> np.ndarray:
    """Number of positions (N, 2) in every bin."""
    return np.histogram2d(*positions.T, bins=list(grid))[0]


def value_map(
    grid: Grid,
    positions: np.ndarray,
    values: np.ndarray,
    *,
    min_count: int,
    quantile: float | None = None,
) -> np.ndarray:
    """Mean or a quantile of the values (N,) at the positions (N, 2) in every bin.

    Bins with fewer positions than ``min_count`` are NaN.
    """
    statistic = "mean" if quantile is None else partial(np.quantile, q=quantile)
    x, y = positions.T
    edges = list(grid)
    found = binned_statistic_2d(x, y, values, statistic, bins=edges)  # pyright: ignore[reportArgumentType]
    return np.where(visits(grid, positions) >= max(min_count, 1), found.statistic, np.nan)


def smooth_map(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian smoothing in bins that neither reads nor fills masked (NaN) bins."""
    known = np.isfinite(values)
    weight = gaussian_filter(known.astype(float), sigma)
    total = gaussian_filter(np.where(known, values, 0.0), sigma)
    return np.where(known, total / np.maximum(weight, 1e-9), np.nan)


def surprise(values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """How rare values as large are among those seen (N,): -log of their share, in nats.

    Increasing in the values and the same for any increasing scale of them. Linear between
    values seen; from 0 at the least to log N at the largest, and constant beyond.
    """
    known, below = np.unique(np.sort(seen), return_index=True)
    return np.interp(values, known, -np.log1p(-below / len(seen)))


def look_up(
    grid: Grid, values: np.ndarray, positions: Float[np.ndarray, "... 2"]
) -> Float[np.ndarray, "..."]:
    """A map's value at positions, linear between bin centres.

    Masked (NaN) bins count as the least known value, so that a policy paid by the map
    has no reason to go where no data was. Outside the grid the nearest bin counts.
    """
    filled = np.where(np.isfinite(values), values, np.nanmin(values))
    centres = [(e[:-1] + e[1:]) / 2 for e in grid]
    inside = [np.clip(positions[..., i], c[0], c[-1]) for i, c in enumerate(centres)]
    return RegularGridInterpolator(centres, filled)(np.stack(inside, -1))


def log_visit_ratio(
    expert_visits: np.ndarray, base_visits: np.ndarray, *, min_count: int, sigma: float
) -> np.ndarray:
    """Log of the ratio of visit frequencies, half a visit added to every bin.

    Both counts are smoothed by ``sigma`` bins first; bins the base has visited fewer
    than ``min_count`` times are NaN.
    """
    expert, base = (gaussian_filter(v, sigma) + 0.5 for v in (expert_visits, base_visits))
    ratio = np.log(expert / expert_visits.sum()) - np.log(base / base_visits.sum())
    return np.where(base_visits >= min_count, ratio, np.nan)


class Peak(NamedTuple):
    """Where a map is highest, and how far the goal is from its highest cells."""

    position: np.ndarray
    distance: float
    top_cells_hit: bool


def find_peak(
    grid: Grid, values: np.ndarray, goal: np.ndarray, *, cell: float, top: int = 3
) -> Peak:
    """Peak of a map, its distance to the goal, and whether a top cell holds the goal.

    Cells are squares of side ``cell`` from the grid's corner; a cell's value is the
    mean of its known bins, and a cell counts as hit if the goal lies in it.

    Raises:
        ValueError: if no bin of the map is known.
    """
    if not np.isfinite(values).any():
        raise ValueError("the map has no bin with enough visits; lower min_count")
    peak = np.unravel_index(np.nanargmax(values), values.shape)
    position = grid.centres[peak]
    corner = np.array([grid.x_edges[0], grid.y_edges[0]])
    cells = np.floor((grid.centres - corner) / cell).astype(int)
    known = np.isfinite(values)
    names, inverse = np.unique(cells[known], axis=0, return_inverse=True)
    inverse = inverse.ravel()
    means = np.bincount(inverse, values[known]) / np.bincount(inverse)
    best = names[np.argsort(means)[::-1][:top]]
    hit = (best == np.floor((goal - corner) / cell).astype(int)).all(1).any()
    return Peak(position, float(np.linalg.norm(position - goal)), bool(hit))
