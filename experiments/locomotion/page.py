"""The page and the figures of one locomotion task, made from its records alone."""

from pathlib import Path
from typing import Any

import numpy as np

from diffreward.data import body_segments
from diffreward.report import Markup, figures, interval, markdown, write_json, write_report
from diffreward.report.films import film
from experiments.locomotion.record import Run
from experiments.locomotion.rollouts import read
from experiments.locomotion.rows import MEANING

PUBLISHED = {
    "halfcheetah": {"unsteered": 30.38, "discriminator": 30.41, "means": 31.65},
    "hopper": {"unsteered": 24.67, "discriminator": 25.12, "means": 27.04},
    "walker2d": {"unsteered": 28.20, "discriminator": 27.98, "means": 38.40},
}
"""Scores by task and row, recalled from the paper, not verified; a task may have none."""
COLUMNS = (
    "method",
    "",
    "score [95 %]",
    "IQM",
    "gap closed [95 %]",
    "scale",
    "steps to failure, median",
)
RECALLED = """ paper*: published scores on D4RL's own data and `-v2` simulators,
recalled and **not verified**."""
FILMED = "figures/film.gif"
FILM = f"""Base, steered (`{{}}`) and expert on the same episode (every fourth step):

![film]({FILMED})

"""
UNSCALED = ("unsteered", "best-of-n", "expert")


def write(run: Run, result: dict[str, Any]) -> None:
    """Writes figures/, report.md and report.json into the run's folder."""
    folder, task = run.workdir / "figures", run.config.task
    draw_scores(folder / "scores.png", result)
    draw_survival(folder / "survival.png", result)
    draw_fvu(folder / "fvu.png", result)
    draw_film(run.workdir / FILMED, task, run.workdir / "evaluation", filmed(result))
    write_json(run.workdir / "report.json", result)
    write_report(run.workdir, page(run, result))


def table(result: dict[str, Any]) -> str:
    """One line per method, in the order of MEANING; published scores if there are any."""
    published = PUBLISHED.get(result["task"], {})

    def line(name: str, m: dict[str, Any]) -> tuple[str, ...]:
        cells = (
            name,
            Markup(MEANING[name]),
            interval(m["score"], ".1f"),
            f"{m['iqm']:.1f}",
            interval(m["gap_closure"]) if "gap_closure" in m else "",
            guidance(name, m),
            f"{m['failure']:.0f}",
        )
        score = f"{published[name]:.1f}" if name in published else ""
        return (*cells, score) if published else cells

    columns = (*COLUMNS, "paper*") if published else COLUMNS
    rows = result["methods"]
    lines = [line(name, rows[name]) for name in MEANING if name in rows]
    return markdown(tuple(map(Markup, columns)), lines)


def guidance(name: str, method: dict[str, Any]) -> str:
    """Scale of a row, and the last level that is guided where that is not 0."""
    if name in UNSCALED:
        return ""
    stop = f", t >= {method['t_stop']}" if method["t_stop"] else ""
    return Markup(f"{method['scale']:g}{stop}")


def collected(results: list[dict[str, Any]]) -> str:
    """Methods in rows and tasks in columns, the published scores below."""
    names = [n for n in MEANING if any(n in r["methods"] for r in results)]

    def cell(result: dict[str, Any], name: str) -> str:
        method = result["methods"].get(name)
        if method is None:
            return ""
        gap = method.get("gap_closure")
        closed = f" ({interval(gap)})" if gap else ""
        return Markup(interval(method["score"], ".1f") + closed)

    def published(result: dict[str, Any], name: str) -> str:
        score = PUBLISHED.get(result["task"], {}).get(name)
        return "" if score is None else f"{score:.1f}"

    lines: list[tuple[str, ...]] = [
        (n, Markup(MEANING[n]), *(cell(r, n) for r in results)) for n in names
    ]
    known = any(r["task"] in PUBLISHED for r in results)
    for name in ("unsteered", "discriminator", "means") if known else ():
        scores = (published(r, name) for r in results)
        lines.append((Markup(f"*published, {name}*"), "recalled, not verified", *scores))
    note = (
        " The published scores are on\nD4RL's data and `-v2` simulators." if known else ""
    )
    return f"""# Relative rewards in locomotion

{markdown(("method", "", *(r["task"] for r in results)), lines)}

Normalised scores (D4RL: random 0, expert 100) with 95 % intervals; in brackets the share
of the gap between base and expert that the method closes.{note}
"""


def page(run: Run, result: dict[str, Any]) -> str:
    """The report as Markdown."""
    config = run.config
    reward, published = result["rewards"]["rewards"], result["rewards"]["paper_rewards"]
    score = result["methods"]["score"]
    simulators = f"`{''.join(run.task.env_id.rpartition('-')[1:])}` simulators"
    motion = FILM.format(filmed(result)) if (run.workdir / FILMED).exists() else ""
    recalled = RECALLED if config.task in PUBLISHED else ""
    return f"""# Relative reward in {config.task}

A *base* Diffuser imitates mediocre data, an *expert* one good data. The relative reward is
learned from the two models; then it steers the base, one plan per step of the simulator.

{table(result)}

Scores are D4RL's (0 random, 100 expert) on {simulators}, {score["episodes"]} episodes a
row: {config.evaluation.episodes} of its own for each of {config.rewards.seeds} seeds of a
learned reward. 95 % intervals by Student's t over the means of seeds, which vary with
both, or over episodes for rows without seeds. One base and one expert, of
`{config.data.base}` and `{config.data.expert}`. *Gap closed* is (method - unsteered) /
(expert - unsteered); steering by the exact difference at scale 1 is the expert's own
sampler. Scales that are not fixed were chosen on other episodes from
{", ".join(f"{s:g}" for s in config.evaluation.scales)}. *Failure*: the last step at which
the mean reward of 50 steps was half of that of the expert's data.{recalled}

![scores](figures/scores.png)

![survival](figures/survival.png)

Unexplained variance of the score difference on held-out windows: {reward["fvu"]:.3f}
(`score`), {published["fvu"]:.3f} (`paper`); where steering goes, on what the expert makes
of the base's states: {reward["steered_fvu"]:.3f} and {published["steered_fvu"]:.3f}.
AUROC of expert against base windows: {interval(reward["auroc"], ".3f")}; the training-free
gap reaches {reward["gap_auroc"]:.3f}.

![fvu](figures/fvu.png)

{motion}Rollouts of `score`: {score["steps_per_second"]:.0f} steps/s, planner
{score["planner_seconds"]:.0f} s, physics {score["physics_seconds"]:.0f} s.
"""


def draw_scores(path: Path, result: dict[str, Any]) -> None:
    """Scores with intervals, one bar per method, and a dot per seed."""
    names = [n for n in MEANING if n in result["methods"]]
    triples = np.array([result["methods"][n]["score"] for n in names])
    fig, axes = figures.grid_of(1, 1, size=5.0)
    ax, y = axes[0], np.arange(len(names))[::-1]
    error = np.abs(triples[:, 1:].T - triples[:, 0])
    ax.barh(y, triples[:, 0], xerr=error, color=figures.BASE, capsize=3)
    for height, name in zip(y, names, strict=True):
        seeds = result["methods"][name]["by_seed"]
        if len(seeds) > 1:
            at = height + np.linspace(-0.2, 0.2, len(seeds))
            ax.plot(seeds, at, "o", color=figures.STEERED, markersize=3)
    ax.set_yticks(y, names)
    ax.set_xlabel("score (D4RL: expert 100)")
    ax.set_title(result["task"])
    figures.save(fig, path)


def draw_survival(path: Path, result: dict[str, Any]) -> None:
    """Share of episodes that still go well after so many steps."""
    fig, axes = figures.grid_of(1, 1, size=4.0)
    for name in (n for n in MEANING if n in result["methods"]):
        axes[0].plot(result["methods"][name]["survival"], label=name)
    axes[0].set(xlabel="steps", ylabel="share of episodes that have not failed")
    axes[0].set_ylim(0, 1.02)
    axes[0].grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    figures.save(fig, path)


def draw_fvu(path: Path, result: dict[str, Any]) -> None:
    """Unexplained variance per noise level of both presets."""
    fig, axes = figures.grid_of(1, 1, size=4.0)
    for name, label in (("rewards", "score"), ("paper_rewards", "paper")):
        found = result["rewards"][name]
        (line,) = axes[0].plot(found["fvu_by_level"], label=f"{label}, data")
        axes[0].plot(
            found["steered_fvu_by_level"],
            color=line.get_color(),
            linestyle="--",
            label=f"{label}, steered",
        )
    axes[0].set(xlabel="noise level t", ylabel="fraction of variance unexplained")
    axes[0].set_ylim(0, 1)
    axes[0].grid(alpha=0.3)
    axes[0].legend()
    figures.save(fig, path)


def filmed(result: dict[str, Any]) -> str:
    """The steered row that is shown beside base and expert."""
    return "score-chosen" if "score-chosen" in result["methods"] else "score"


def draw_film(path: Path, task: str, evaluation: Path, steered: str) -> None:
    """Base, steered base and expert on one episode, if they were recorded.

    A body without capsules leaves nothing to draw.
    """
    shown = {
        "unsteered": figures.BASE,
        steered: figures.STEERED,
        "expert": figures.EXPERT,
    }
    bodies = {}
    for name in shown:
        arrays = read(evaluation / f"{name}.npz")
        if "film_0" in arrays:
            bodies[name] = body_segments(task, arrays["film_0"][:400:4])
    if bodies and all(body.shape[1] for body in bodies.values()):
        film(path, bodies, colours=shown)
