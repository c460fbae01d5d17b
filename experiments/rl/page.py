"""The page and the figure of a study, made from its records alone."""

from pathlib import Path
from typing import Any

import numpy as np

from configs.common import ConfigDict
from diffreward import files, report
from diffreward.report import figures
from diffreward.report.canvas import EngFormatter
from diffreward.text import say
from experiments.rl.build import Job

NO_SCALE = "no scale: the true reward taught its own policies nothing"
COLOURS = {
    "true": figures.EXPERT,
    "extracted": figures.STEERED,
    "random": figures.BASE,
}


def write(
    config: ConfigDict,
    workdir: Path,
    records: dict[Job, dict[str, Any]],
    result: dict[str, Any],
) -> None:
    """Writes figures/, report.md and report.json into the study's folder; says the page."""
    draw_learning(workdir / "figures" / "learning.png", config, records)
    report.write_json(workdir / "report.json", result)
    text = page(config, result)
    files.write_text(
        workdir / "report.md", f"{text}\n\n![learning curves](figures/learning.png)\n"
    )
    say(f"{text}\nreport: {workdir / 'report.md'}")


def draw_learning(
    path: Path, config: ConfigDict, records: dict[Job, dict[str, Any]]
) -> None:
    """True return against steps: mean, least and greatest seed of every reward."""
    fig, axes = figures.grid_of(len(config.goals), len(config.goals), size=3.4)
    for ax, goal in zip(axes, config.goals, strict=True):
        for kind in config.rewards:
            jobs = [Job(goal, kind, seed) for seed in range(config.seeds)]
            curves = np.array([records[job]["curve"] for job in jobs])
            steps, values = curves[0, :, 0], curves[:, :, 1]
            colour = COLOURS[kind]
            ax.plot(steps, values.mean(0), color=colour, label=kind)
            ax.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.2)
        ax.set(xlabel="steps", ylabel="true return", title=f"goal {goal}")
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    figures.save(fig, path)


def page(config: ConfigDict, result: dict[str, Any]) -> str:
    """What a person reads, but for the figure."""
    rows = [
        [
            kind,
            *(report.interval(found["returns"][str(g)], ".1f") for g in config.goals),
            report.interval([100 * v for v in found["share"]], ".1f"),
            report.interval(found["regret"], ".3f") if found["regret"] else NO_SCALE,
        ]
        for kind, found in result["kinds"].items()
    ]
    header = [
        "trained on",
        *(f"true return, goal {g}" for g in config.goals),
        "share of the true reward's return, %",
        "regret",
    ]
    return f"""# PPO from scratch, {config.maze2d.maze}

Mean and 95 % interval over {config.seeds} seeds; {config.steps:,} steps each; \
{config.evaluation_episodes} episodes of {config.episode_steps} steps from starts that no \
training has seen. Bands: least and greatest seed.

{report.markdown(header, rows)}"""
