"""Figures from arrays and records. No computation of results here."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffreward import files
from diffreward.report.canvas import Axes, Figure

REWARD_MAP = "viridis"
BASE, STEERED, EXPERT = "#9a9a9a", "#d1495b", "#00798c"


def draw_walls(ax: Axes, walls: np.ndarray) -> None:
    """Draws a maze; ``walls`` is a boolean (rows, columns) array of unit cells."""
    rows, cols = walls.shape
    extent = (-cols / 2, cols / 2, -rows / 2, rows / 2)
    shade = np.where(walls, 0.25, np.nan)
    ax.imshow(shade, cmap="gray", vmin=0, vmax=1, extent=extent, zorder=2)
    ax.set(xlim=extent[:2], ylim=extent[2:], xticks=[], yticks=[], aspect="equal")


def draw_map(
    ax: Axes,
    walls: np.ndarray,
    edges: tuple[np.ndarray, np.ndarray],
    values: np.ndarray,
    goal: np.ndarray,
    title: str,
) -> None:
    """One reward map, scaled to its own range; unknown bins stay white."""
    low, high = np.nanpercentile(values, [1, 99])
    ax.pcolormesh(*edges, values.T, cmap=REWARD_MAP, vmin=low, vmax=high, zorder=1)
    draw_walls(ax, walls)
    star = {"ms": 13, "mec": "black", "mew": 0.8, "zorder": 4}
    ax.plot(*goal, marker="*", color="#ff3b3b", **star)
    ax.set_title(title, fontsize=9)


def draw_plans(
    ax: Axes,
    walls: np.ndarray,
    plans: Sequence[tuple[np.ndarray, str]],
    goal: np.ndarray,
    title: str,
) -> None:
    """Position tracks (N, H, 2), each set in its colour, ends marked."""
    draw_walls(ax, walls)
    for tracks, colour in plans:
        for track in tracks:
            ax.plot(*track.T, color=colour, lw=0.8, alpha=0.6, zorder=3)
        ax.plot(*tracks[:, -1].T, ".", color=colour, ms=4, zorder=4)
    ax.plot(*goal, marker="*", color="gold", ms=13, mec="black", mew=0.8, zorder=5)
    ax.set_title(title, fontsize=9)


def draw_points(
    ax: Axes,
    walls: np.ndarray,
    places: np.ndarray,
    values: np.ndarray,
    goal: np.ndarray,
    title: str,
) -> None:
    """Places (N, 2) coloured by their values (N,), those of high value on top."""
    order = np.argsort(values)
    low, high = np.percentile(values, [1, 99])
    dots = {"c": values[order], "cmap": REWARD_MAP, "vmin": low, "vmax": high}
    ax.scatter(*places[order].T, s=1.5, zorder=3, **dots)
    draw_walls(ax, walls)
    ax.plot(*goal, marker="*", color="#ff3b3b", ms=13, mec="black", mew=0.8, zorder=5)
    ax.set_title(title, fontsize=9)


def histogram(ax: Axes, x: np.ndarray, y: np.ndarray, bins: int = 30) -> None:
    """How often pairs (N,), (N,) occur, and the mean of y over x where x is frequent."""
    span = [np.percentile(v, [0.5, 99.5]) for v in (x, y)]
    if any(low == high for low, high in span):
        return
    ax.hist2d(x, y, bins=bins, range=span, cmap="Greys", norm="log")
    edges = np.linspace(span[0][0], span[0][1], bins + 1)
    place = np.digitize(x, edges) - 1
    count = np.bincount(place.clip(0, bins - 1), minlength=bins)
    total = np.bincount(place.clip(0, bins - 1), y, minlength=bins)
    often = count >= max(len(x) // 500, 5)
    middle = (edges[1:] + edges[:-1]) / 2
    ax.plot(middle[often], (total / np.maximum(count, 1))[often], color=STEERED, lw=1.5)
    ax.tick_params(labelsize=7)


def grid_of(count: int, columns: int, size: float = 2.3) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` square axes."""
    rows = -(-count // columns)
    fig = Figure(figsize=(size * columns, size * rows))
    axes = fig.subplots(rows, columns, squeeze=False)
    flat = list(axes.flat)
    for ax in flat[count:]:
        ax.axis("off")
    return fig, flat[:count]


def scatter(
    ax: Axes, groups: Sequence[tuple[np.ndarray, np.ndarray, str]], title: str
) -> None:
    """Point groups (x, y, colour)."""
    for x, y, colour in groups:
        ax.plot(x, y, ".", color=colour, ms=3, alpha=0.6)
    ax.set_title(title, fontsize=9)
    ax.tick_params(labelsize=7)


def lines(
    ax: Axes, curves: Sequence[tuple[np.ndarray, str]], x_label: str, y_label: str
) -> None:
    """Labelled curves over their index."""
    for y, label in curves:
        ax.plot(y, label=label, lw=1.3)
    ax.set(xlabel=x_label, ylabel=y_label)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=7, ncols=2)


def save(fig: Figure, path: Path) -> Path:
    """Writes a PNG, whole or not at all."""
    fig.tight_layout()
    picture = io.BytesIO()
    fig.savefig(picture, dpi=150, format="png")
    files.write_bytes(path, picture.getvalue())
    return path
