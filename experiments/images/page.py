"""The audit as a page: numbers, distributions, and the pictures behind them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffreward import report
from diffreward.report import figures
from diffreward.text import markdown_code, markdown_text
from experiments.images.build import Run
from experiments.images.pair import ImagePair

Decode = Callable[[np.ndarray], np.ndarray]


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


def write(run: Run, result: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Writes ``report.md`` and its figures."""
    folder, decode = run.workdir / "figures", run.pair.decode
    draw_distributions(folder / "rewards.png", result, arrays)
    draw_levels(folder / "levels.png", result)
    shown = run.config.audit.shown
    draw_extremes(folder / "samples.png", arrays, decode, shown)
    lines = [*head(result), *level_text(), *slice_text(result), *sample_text(result)]
    lines += cut_text(run.pair)
    if "audience" in result:
        draw_audience(folder / "held_out.png", arrays, decode, shown)
        lines += audience_text(result["audience"])
    lines += ["Settings stand in `*/config.json`, numbers in `report.json`.", ""]
    report.write_report(run.workdir, "\n".join(lines))


def units(result: dict[str, Any]) -> Units:
    """Units of the reward that was audited."""
    return UNITS.get(result["preset"], UNNAMED)


def auroc(found: dict[str, Any]) -> str:
    """The AUROC of a record with its interval."""
    return report.interval(found["auroc"], ".3f")


def head(result: dict[str, Any]) -> list[str]:
    """What was asked, and the first answer."""
    found = [
        ["AUROC, samples of the expert against the base", auroc(result)],
        ["mean reward of the base's samples", f"{result['base']['mean']:.2f}"],
        ["mean reward of the expert's samples", f"{result['expert']['mean']:.2f}"],
        [
            "variance of the models' difference left unexplained, mean over levels",
            f"{np.mean(result['fvu']):.3f}",
        ],
    ]
    return [
        f"# Audit: {markdown_text(result['pair'])}",
        "",
        "The reward was learned from the two models' outputs alone: its gradient is what",
        f"the expert would change about the base's picture. {units(result).sentence}",
        f"Everything below is on {result['requests']} requests that no training has seen.",
        "",
        report.markdown(["what", "value"], found),
        "",
        "![rewards](figures/rewards.png)",
        "",
    ]


def level_text() -> list[str]:
    """Coarse against fine."""
    return [
        "## Coarse and fine preferences",
        "",
        "High noise levels leave only the layout of a picture, low ones its details. Where",
        "the curve is high, that is where the two models differ.",
        "",
        "![levels](figures/levels.png)",
        "",
    ]


def slice_text(result: dict[str, Any]) -> list[str]:
    """By column of metadata, if there is any."""
    if not result["slices"]:
        return []
    rows = [
        [
            r["column"],
            r["value"],
            str(r["requests"]),
            report.interval(r["base"]),
            report.interval(r["difference"]),
        ]
        for r in result["slices"]
    ]
    header = ["column", "value", "requests", "reward of the base", "expert minus base"]
    return ["## By kind of request", "", report.markdown(header, rows), ""]


def sample_text(result: dict[str, Any]) -> list[str]:
    """Most and least preferred samples."""
    near, among = (result["nearest"][n] for n in ("to_training", "among_training"))
    return [
        "## Most and least preferred samples of both models",
        "",
        "Top rows: highest reward, best first; bottom rows: lowest, worst first.",
        "",
        "![samples](figures/samples.png)",
        "",
        f"Nearest sample the training has seen: {near['mean']:.3f} away on average (root",
        "mean square of the difference); for a training sample, the nearest other one is",
        f"{among['mean']:.3f} away.",
        "Equal distances mean that the ranking is not a matter of having been seen.",
        "",
    ]


def cut_text(pair: ImagePair) -> list[str]:
    """Prompts of which the models have read the beginning only."""
    if not pair.cut:
        return []
    prompts = [f"- {i + 1}: {markdown_code(pair.prompts.text[i])}" for i in pair.cut]
    return [
        "## Prompts that were cut",
        "",
        f"{len(prompts)} of {len(pair.prompts.text)} prompts are longer than the text",
        "encoder reads; what they say beyond that no model has seen.",
        "",
        *prompts,
        "",
    ]


def audience_text(found: dict[str, Any]) -> list[str]:
    """Held-out images in two known groups."""
    rows = [
        [
            name,
            "yes" if c["preferred"] else "no",
            f"{c['mean']:.2f}",
            f"{c['deviation']:.2f}",
        ]
        for name, c in sorted(found["by_class"].items(), key=lambda item: -item[1]["mean"])
    ]
    return [
        "## Held-out images of known kind",
        "",
        f"{found['images']} real images that neither model has seen. AUROC of those the",
        f"expert was meant to prefer against the others: **{auroc(found)}**.",
        "",
        report.markdown(["class", "preferred", "mean reward", "deviation"], rows),
        "",
        "![held out](figures/held_out.png)",
        "",
    ]


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
    left.axhline(0.5, color="0.6", lw=0.8)
    left.set(xlabel="noise level t", ylabel="AUROC", ylim=(0.4, 1.02))
    left.legend(fontsize=7)
    right.plot(levels, result["fvu"])
    right.set(xlabel="noise level t", ylabel="variance unexplained", ylim=(0, None))
    for ax in (left, right):
        ax.grid(alpha=0.3)
    figures.save(fig, path)


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
