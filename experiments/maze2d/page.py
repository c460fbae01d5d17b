"""The page and the figures of one maze, made from its records alone."""

from pathlib import Path
from typing import Any

import numpy as np

from configs.common import ConfigDict
from diffreward import train
from diffreward.data import read_arrays
from diffreward.report import Markup, figures, markdown, write_json, write_report
from experiments.maze2d.build import REWARDS, Run


def write(run: Run, result: dict[str, Any]) -> None:
    """Writes figures/, report.md and report.json into the run's folder."""
    workdir, walls = run.workdir, run.maze.walls
    arrays = {
        goal: read_arrays(workdir / "evaluation" / f"goal{goal}.npz")
        for goal in result["goals"]
    }
    folder = workdir / "figures"
    draw_summary(folder / "summary.png", walls, result, arrays)
    draw_maps(folder / "maps.png", walls, result, arrays)
    draw_steering(folder / "steering.png", walls, result, arrays)
    draw_agreement(folder / "agreement.png", result, arrays)
    draw_progress(folder / "progress.png", result, arrays)
    draw_tracks(folder / "tracks.png", walls, result, arrays)
    draw_fvu(folder / "fvu.png", result)
    draw_training(folder / "training.png", workdir)
    write_json(workdir / "report.json", result)
    write_report(workdir, page(run.config, result))


def draw_summary(path: Path, walls: np.ndarray, result: dict, arrays: dict) -> None:
    """Up to eight goals: the map above, steered (red) and unsteered plans below."""
    names = list(result["goals"])[:8]
    fig, axes = figures.grid_of(2 * len(names), len(names), size=2.0)
    for i, name in enumerate(names):
        goal, a = np.array(result["goals"][name]["goal"]), arrays[name]
        edges = (a["x_edges"], a["y_edges"])
        figures.draw_map(axes[i], walls, edges, a["map"], goal, f"goal {name}: reward")
        plans = [
            (a["plans unsteered"][:25], figures.BASE),
            (a[f"plans {result['summary']['steered_name']}"][:25], figures.STEERED),
        ]
        figures.draw_plans(axes[len(names) + i], walls, plans, goal, "base, steered")
    figures.save(fig, path)


def draw_maps(path: Path, walls: np.ndarray, result: dict, arrays: dict) -> None:
    """Reward map and log visit ratio of every goal."""
    fig, axes = figures.grid_of(2 * len(arrays), 4)
    for i, (name, a) in enumerate(arrays.items()):
        g = result["goals"][name]
        goal, edges = np.array(g["goal"]), (a["x_edges"], a["y_edges"])
        pair = (("map", f"reward {name}"), ("visit_ratio", "log visit ratio"))
        for j, (key, title) in enumerate(pair):
            figures.draw_map(axes[2 * i + j], walls, edges, a[key], goal, title)
    figures.save(fig, path)


def draw_steering(path: Path, walls: np.ndarray, result: dict, arrays: dict) -> None:
    """Plans from the same starts: base, steered, expert."""
    steered = result["summary"]["steered_name"]
    ways = (
        ("unsteered", figures.BASE),
        (steered, figures.STEERED),
        ("expert", figures.EXPERT),
    )
    fig, axes = figures.grid_of(3 * len(arrays), 3)
    for i, (name, a) in enumerate(arrays.items()):
        g = result["goals"][name]
        for j, (way, colour) in enumerate(ways):
            title = f"goal {name}, {way}: {100 * g['reached'][way]:.0f} %"
            plans = [(a[f"plans {way}"][:40], colour)]
            figures.draw_plans(axes[3 * i + j], walls, plans, np.array(g["goal"]), title)
    figures.save(fig, path)


def draw_agreement(path: Path, result: dict, arrays: dict) -> None:
    """Learned reward against the training-free log ratio of the two models."""
    fig, axes = figures.grid_of(len(arrays), 4)
    for ax, (name, a) in zip(axes, arrays.items(), strict=True):
        expert = a["is_expert"]
        groups = [
            (a["log_ratio"][~expert], a["reward"][~expert], figures.BASE),
            (a["log_ratio"][expert], a["reward"][expert], figures.EXPERT),
        ]
        r = result["goals"][name]["correlation"]
        figures.scatter(ax, groups, f"goal {name}: r = {r:.3f}")
    fig.supxlabel("training-free log ratio (nats)", fontsize=9)
    fig.supylabel("learned reward (mean over levels, no unit)", fontsize=9)
    figures.save(fig, path)


def draw_progress(path: Path, result: dict, arrays: dict) -> None:
    """How often windows of a progress have a reward, and the mean reward of each."""
    fig, axes = figures.grid_of(len(arrays), 4)
    for ax, (name, a) in zip(axes, arrays.items(), strict=True):
        rank = result["goals"][name]["progress_spearman"]
        figures.histogram(ax, a["window_progress"], a["window_reward"])
        ax.set_title(f"goal {name}: rank corr. {rank:.2f}", fontsize=9)
    fig.supxlabel("decrease of the walking distance over a window (m)", fontsize=9)
    fig.supylabel("reward of the window", fontsize=9)
    figures.save(fig, path)


def draw_tracks(path: Path, walls: np.ndarray, result: dict, arrays: dict) -> None:
    """The base's held-out episodes, coloured by the reward of their windows."""
    fig, axes = figures.grid_of(len(arrays), 4)
    for ax, (name, a) in zip(axes, arrays.items(), strict=True):
        goal = np.array(result["goals"][name]["goal"])
        points = a["window_place"], a["window_reward"]
        figures.draw_points(ax, walls, *points, goal, f"goal {name}")
    figures.save(fig, path)


def draw_fvu(path: Path, result: dict) -> None:
    """Held-out fraction of variance unexplained per noise level."""
    fig, (ax,) = figures.grid_of(1, 1, size=5.0)
    curves = [
        (np.array(g["fvu_by_level"]), f"goal {name}") for name, g in result["goals"].items()
    ]
    figures.lines(ax, curves, "noise level t", "fraction of variance unexplained")
    ax.set_ylim(0, max(1.0, *(c.max() for c, _ in curves)))
    figures.save(fig, path)


def draw_training(path: Path, workdir: Path) -> None:
    """Training loss of every stage."""
    stages = ("base", "experts", *REWARDS)
    fig, axes = figures.grid_of(len(stages), 4, size=3.0)
    for ax, stage in zip(axes, stages, strict=True):
        rows = train.read_rows(workdir / stage / "metrics.jsonl")
        rows = [r for r in rows if "train/loss" in r]
        loss = np.array([np.atleast_1d(r["train/loss"]) for r in rows])
        ax.semilogy([r["step"] for r in rows], loss, lw=0.9)
        ax.set_xlabel("step", fontsize=8)
        ax.set_title(f"{stage}: loss", fontsize=9)
        ax.tick_params(labelsize=7)
    figures.save(fig, path)


def page(config: ConfigDict, result: dict) -> str:
    """The report a person reads."""
    s = result["summary"]
    steered = s["steered_name"]
    rows = [
        (
            name,
            g["recovered"],
            g["peak_distance"],
            g["counted_peak_distance"],
            g["top_cells_hit"],
            g["auroc"],
            g["accuracy"],
            g["correlation"],
            g["correlation_in_base"],
            g["correlation_in_expert"],
            g["map_spearman"],
            g["fvu"],
            g["window_fvu"],
            g["reached"]["unsteered"],
            g["reached"][steered],
            g["reached"]["difference"],
            g["reached"]["expert"],
            g["executed"][steered],
        )
        for name, g in result["goals"].items()
    ]
    header = (
        "goal,found,peak to goal (m),peak of visits (m),in top 3 cells,AUROC [95 %],"
        "accuracy [95 %],corr. with log ratio,in base,in expert,map vs visits,FVU,"
        f"FVU of windows,base,{steered},difference,expert,executed"
    ).split(",")
    return f"""# Relative rewards in the {config.maze} maze

{opening(config)}

![rewards and steered plans](figures/summary.png)

**Goals found: {s["goals_recovered"]} of {s["goals"]}** (the peak of the reward map lies
within half a cell of the goal, {s["peak_distance"]:.2f} m at most;
{s["goals_in_top_cells"]} of {
        s["goals"]
    } goals lie in one of the three best cells). Counting
finds {s["goals_counted"]} of {s["goals"]}, {
        s["counted_peak_distance"]:.2f} m at most, with no
model at all: the peak of the log ratio of the held-out data's own visits.

| what | mean over goals | meaning |
|---|---|---|
| AUROC, expert against base trajectories | {s["auroc"]:.3f} | 0.5 is chance; the \
training-free gap of the two models reaches {s["gap_auroc"]:.3f} |
| balanced accuracy, expert against base windows | {s["accuracy"]:.3f} | of the reward at \
the least noise, threshold from validation windows; training-free {s["gap_accuracy"]:.3f} |
| correlation with the training-free log ratio | {s["correlation"]:.3f} | on held-out \
windows of both; within base {s["correlation_in_base"]:.3f}, within expert \
{s["correlation_in_expert"]:.3f} |
| slope of the reward in nats on the log ratio | {
        s["slope"]:.2f} | at the least noise; 1 if \
it is the log density ratio |
| rank correlation of map and log visit ratio | {s["map_spearman"]:.2f} | against the \
held-out data's own visits |
| rank correlation of map and minus the walking distance | {s["geodesic_spearman"]:.2f} | \
of the log visit ratio: {s["data_geodesic_spearman"]:.2f} |
| rank correlation of a window's reward and its progress to the goal \
| {s["progress_spearman"]:.2f} | over windows of the base's held-out episodes |
| FVU of the reward, of the window reward | {s["fvu"]:.3f}, {s["window_fvu"]:.3f} | share \
of the score difference left unexplained on held-out data |
| plans that end at the goal: base, {steered}, difference, expert | \
{percent(s["reached"], steered)} \
| from held-out start states; *difference* is the upper bound of any reward |
| the same, executed in the simulator | \
{percent(s["executed"], steered)} \
| plans followed by the PD controller |
{replanned(s, steered, config)}
{markdown(list(map(Markup, header)), rows)}

Share of plans that end within {config.evaluation.reach:g} m of the goal, by guidance scale
({config.evaluation.space}-space):

{
        markdown(
            ["goal", *next(iter(result["goals"].values()))["reached"]],
            [(n, *g["reached"].values()) for n, g in result["goals"].items()],
        )
    }

Maps with the visits they are compared with: ![maps](figures/maps.png)

Plans of base, steered base and expert from the same starts:
![plans](figures/steering.png)

Reward against the training-free log ratio of the models, one dot per held-out window
(grey: base data, blue: expert data): ![agreement](figures/agreement.png)

Reward of windows against their progress to the goal: how many there are, and the mean
reward (line): ![progress](figures/progress.png)

Held-out episodes of the base, coloured by the reward of their windows:
![tracks](figures/tracks.png)

Unexplained variance per noise level: ![fvu](figures/fvu.png)

Training: ![training](figures/training.png)

Settings stand in `*/config.json`, numbers in `report.json`, training curves in
`*/metrics.jsonl` and `*/tensorboard`.
"""


def opening(config: ConfigDict) -> str:
    """What the models are."""
    if config.conditioned:
        return """\
Two diffusion models: a *base* that goes anywhere, and one *expert* that goes to the goal
that it is told. One relative reward, told the same, is learned from the two models."""
    return """\
Two diffusion models per goal: a *base* that goes anywhere and an *expert* that goes to
one goal. The relative reward is learned from the two models alone; nobody told it where
the goals are."""


def replanned(summary: dict[str, Any], steered: str, config: ConfigDict) -> str:
    """The line of plans that are made anew on the way, if any were."""
    if not summary["replanned"]:
        return ""
    return (
        f"| the same, planned anew every {config.evaluation.replan} steps | "
        f"{percent(summary['replanned'], steered)} | in as many steps as a plan has |\n"
    )


def percent(shares: dict[str, float], steered: str) -> str:
    """Shares of base, steered, difference and expert in percent."""
    ways = ("unsteered", steered, "difference", "expert")
    return ", ".join(f"{100 * shares[way]:.0f} %" for way in ways)
