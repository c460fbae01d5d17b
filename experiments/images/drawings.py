"""Pictures of an audit, from its numbers and arrays alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffreward import report
from diffreward.report import figures

Decode = Callable[[np.ndarray], np.ndarray]
"""Maps latents to pictures."""


class Units(NamedTuple):
    """What a reward is measured in, by axes and in the text."""

    axis: str
    sentence: str


UNITS = {
    "score": Units("nats", "In nats, up to a constant."),
    "paper": Units(
        "units of standardised latents",
        "In units of standardised latents, up to a constant per level.",
    ),
}
UNNAMED = Units("units of its own", "In units of its own, up to a constant per level.")
"""Of any other objective."""

Row = tuple[str, np.ndarray, np.ndarray | None]
"""Name, latents, and the rewards to write above them."""


def units(result: dict[str, Any]) -> Units:
    """Units of the reward that was audited."""
    return UNITS.get(result["preset"], UNNAMED)


def draw_distributions(
    path: Path, result: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    """Histograms of both models' samples."""
    rewards, is_expert = arrays["rewards"], arrays["is_expert"]
    low, high = np.percentile(rewards, [0.5, 99.5])
    bins = np.linspace(low, high, 41)
    fig, (ax,) = figures.grid_of(1, 1, size=4.2)
    for mask, colour, name in (
        (~is_expert, figures.BASE, "base"),
        (is_expert, figures.EXPERT, "expert"),
    ):
        inside = np.clip(rewards[mask], low, high)
        ax.hist(inside, bins, color=colour, alpha=0.6, label=name, density=True)
    axis = units(result).axis
    ax.set(xlabel=f"reward ({axis}, outer half percent at the ends)", ylabel="density")
    ax.set_title(f"AUROC {report.interval(result['auroc'])}", fontsize=9)
    ax.legend(fontsize=8)
    figures.save(fig, path)


def draw_levels(path: Path, result: dict[str, Any]) -> None:
    """AUROC and unexplained variance per noise level."""
    fig, (left, right) = figures.grid_of(2, 2, size=3.6)
    levels = result["levels"]
    left.plot(levels, result["auroc_by_level"], label="expert against base samples")
    if "audience" in result:
        found = result["audience"]["auroc_by_level"]
        left.plot(levels, found, label="held-out images, noised")
    for name, found in by_level(result):
        at = np.linspace(levels[0], levels[-1], len(found))
        left.plot(at, found, lw=1, ls="--", label=name)
    left.axhline(0.5, color="0.6", lw=0.8)
    left.set(xlabel="noise level t", ylabel="AUROC", ylim=(0.4, 1.02))
    left.legend(fontsize=7)
    right.plot(levels, result["fvu"])
    right.set(xlabel="noise level t", ylabel="variance unexplained", ylim=(0, None))
    for ax in (left, right):
        ax.grid(alpha=0.3)
    figures.save(fig, path)


def by_level(result: dict[str, Any]) -> list[tuple[str, list[float]]]:
    """What the rivals of a reward say of the last group of known content, per level."""
    found = result.get("content")
    if not found:
        return []
    group = found["groups"][-1]["name"]
    return [
        (f"{group}, {name}", found["by_level"][f"{group}/{name}"])
        for name in found["scores"]
        if name != "reward" or "audience" not in result
    ]


def draw_steered(
    path: Path, samples: dict[str, np.ndarray], chosen: np.ndarray, decode: Decode
) -> None:
    """The same requests by the base, by the steered base, and by the expert."""
    draw_rows(path, [(name, x[chosen], None) for name, x in samples.items()], decode)


def draw_extremes(
    path: Path, arrays: dict[str, np.ndarray], decode: Decode, shown: int
) -> None:
    """Highest and lowest rewards, each with the nearest training sample below."""
    order = np.argsort(-arrays["rewards"], kind="stable")
    best, worst = order[:shown], order[::-1][:shown]
    x_0, near = arrays["x_0"], arrays["nearest"]
    rows: list[Row] = [
        ("highest", x_0[best], arrays["rewards"][best]),
        ("nearest seen", near[best], None),
        ("lowest", x_0[worst], arrays["rewards"][worst]),
        ("nearest seen", near[worst], None),
    ]
    draw_rows(path, rows, decode)


def draw_audience(
    path: Path, arrays: dict[str, np.ndarray], decode: Decode, shown: int
) -> None:
    """Held-out images with the highest and the lowest reward."""
    rewards, images = arrays["audience_rewards"], arrays["audience_images"]
    order = np.argsort(-rewards, kind="stable")
    best, worst = order[:shown], order[::-1][:shown]
    rows: list[Row] = [
        ("highest", images[best], rewards[best]),
        ("lowest", images[worst], rewards[worst]),
    ]
    draw_rows(path, rows, decode)


def draw_rows(path: Path, rows: list[Row], decode: Decode) -> None:
    """One row of pictures per entry, rewards above them."""
    columns = max(len(x) for _, x, _ in rows)
    fig, axes = figures.grid_of(columns * len(rows), columns, size=0.85)
    for ax in axes:
        ax.axis("off")
    for r, (name, latents, values) in enumerate(rows):
        for c, picture in enumerate(decode(latents)):
            ax = axes[r * columns + c]
            grey = picture.shape[-1] == 1
            ax.imshow(picture[..., 0] if grey else picture, cmap="gray", vmin=0, vmax=1)
            if values is not None:
                ax.set_title(f"{values[c]:.1f}", fontsize=6)
        axes[r * columns].text(
            -0.15,
            0.5,
            name,
            rotation=90,
            va="center",
            ha="right",
            fontsize=7,
            transform=axes[r * columns].transAxes,
        )
    figures.save(fig, path)
