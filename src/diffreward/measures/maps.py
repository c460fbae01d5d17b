"""Maps of a reward over the plane: made from places, compared with visits and goals."""

from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import gaussian_filter
from scipy.stats import binned_statistic_2d


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


class Concentration(NamedTuple):
    """Area under the mass-within-radius curve, and that of a flat map."""

    area: float
    flat: float


def mass_near_goal(
    values: Float[np.ndarray, "*grid"],
    centres: Float[np.ndarray, "*grid dim"],
    goal: Float[np.ndarray, " dim"],
    radius: float,
) -> Concentration:
    """Area under r -> share of reward within r of the goal, for r up to ``radius``.

    The share counts every bin by its excess over the lowest known bin, so the map's
    free constant and positive scale do not matter. The area over ``radius`` equals the
    mean of max(0, 1 - distance / radius) over that share: 1 if all mass is at the goal,
    0 if none is within ``radius``. The map's shape leaves some mass near the goal
    whatever its values, which ``flat`` gives: compare the two.

    Args:
        values: reward per bin; NaN where unknown.
        centres: position of every bin.
        goal: position of the goal.
        radius: largest distance that counts, in the units of the positions.

    Raises:
        ValueError: if no bin is known, all values are equal, or ``radius`` is not
            positive.
    """
    known = np.isfinite(values)
    if not known.any():
        raise ValueError("the map has no known bin")
    if radius <= 0:
        raise ValueError(f"radius must be positive, got {radius:g}")
    excess = values[known] - values[known].min()
    if excess.sum() == 0:
        raise ValueError("all known bins have the same value; the map shows no mass")
    near = np.maximum(0, 1 - np.linalg.norm(centres[known] - goal, axis=-1) / radius)
    return Concentration(float(near @ excess / excess.sum()), float(near.mean()))
