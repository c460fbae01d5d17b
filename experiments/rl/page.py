"""The page and the figure of a study, made from its records alone."""

from pathlib import Path
from typing import Any

import numpy as np

from configs.common import ConfigDict
from diffreward import report
from diffreward.report import figures
from diffreward.report.canvas import EngFormatter
from diffreward.text import say
from experiments.rl.build import Job, seeds
from experiments.rl.pay import FORMS

NO_SCALE = "no scale: the true reward taught its own policies nothing"
COLOURS = {
    "true": figures.EXPERT,
    "states": figures.STEERED,
    "random": figures.BASE,
}
"""Of forms of pay; the others have the next of the usual ones."""


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
    report.write_report(workdir, f"{text}\n\n![learning curves](figures/learning.png)\n")
    say(f"{text}\nreport: {workdir / 'report.md'}")


def draw_learning(
    path: Path, config: ConfigDict, records: dict[Job, dict[str, Any]]
) -> None:
    """True return against steps: mean, least and greatest seed of every reward."""
    fig, axes = figures.grid_of(len(config.goals), len(config.goals), size=3.4)
    for ax, goal in zip(axes, config.goals, strict=True):
        for kind in config.rewards:
            jobs = [Job(goal, kind, seed) for seed in seeds(config)]
            curves = np.array([records[job]["curve"] for job in jobs])
            steps, values = curves[0, :, 0], curves[:, :, 1]
            (line,) = ax.plot(steps, values.mean(0), color=COLOURS.get(kind), label=kind)
            spread = values.min(0), values.max(0)
            ax.fill_between(steps, *spread, color=line.get_color(), alpha=0.2)
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
            report.Markup(FORMS[kind].meaning),
            *(report.interval(found["returns"][str(g)], ".1f") for g in config.goals),
            report.interval([100 * v for v in found["share"]], ".1f"),
            report.interval(found["regret"], ".3f") if found["regret"] else NO_SCALE,
            "" if found["epic"] is None else f"{found['epic']:.2f}",
        ]
        for kind, found in result["kinds"].items()
    ]
    header = [
        "paid",
        "",
        *(f"true return, goal {g}" for g in config.goals),
        "share of the true reward's return, %",
        "regret",
        "EPIC distance to the true reward",
    ]
    return f"""# PPO from scratch, {config.maze2d.maze}

Mean and 95 % interval over {config.seeds} seeds, of shares over goals; \
{config.steps:,} steps each; \
{config.evaluation_episodes} episodes of {config.episode_steps} steps from starts that no \
training has seen. Bands: least and greatest seed.

{report.markdown(header, rows)}"""
