"""Collects finished runs into one page: mazes, locomotion, audits of images.

    python -m experiments.report runs/umaze runs/medium runs/hopper --out runs/report

Everything comes from the runs' records; nothing is computed again.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from diffreward import files
from diffreward.cli.guard import guarded
from diffreward.data import make_maze, read_arrays
from diffreward.report import figures, markdown, read_json, write_report
from diffreward.text import say
from experiments.images import collected
from experiments.locomotion import page as locomotion_page

MAZE_COLUMNS = (
    "maze",
    "goals found",
    "by counting",
    "AUROC",
    "corr. with log ratio",
    "in base",
    "in expert",
    "map vs visits",
    "FVU",
    "of windows",
    "base",
    "steered",
    "difference",
    "expert",
    "minutes",
)


def main(argv: list[str] | None = None) -> Path:
    """Writes ``report.md`` and its figures under ``--out``; returns the page.

    Raises:
        ValueError: for a folder whose report is of no known experiment.
    """
    parser = argparse.ArgumentParser(
        prog="python -m experiments.report", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "runs", nargs="+", type=files.user_path, help="folders of finished runs"
    )
    parser.add_argument("--out", type=files.user_path, default=Path("runs/report"))
    args = parser.parse_args(argv)
    results = {run: read_json(run / "report.json") for run in args.runs}
    mazes = {run: r for run, r in results.items() if "maze" in r}
    tasks = [r for r in results.values() if "task" in r]
    audits = [r for r in results.values() if "pair" in r]
    for run in results:
        if not {"maze", "task", "pair"} & set(results[run]):
            raise ValueError(
                f"{run / 'report.json'}: no run of mazes, locomotion or images"
            )
    parts = []
    if mazes:
        draw(args.out / "maps.png", mazes)
        parts.append(maze_page(mazes))
    if tasks:
        parts.append(locomotion_page.collected(tasks))
    if audits:
        parts.append(collected.page(audits))
    write_report(args.out, "\n".join(parts))
    return args.out / "report.md"


def maze_page(results: dict[Path, dict[str, Any]]) -> str:
    """All mazes under one another."""
    table = markdown(MAZE_COLUMNS, [row(run, r) for run, r in results.items()])
    return f"""# Relative rewards in Maze2D

![maps](maps.png)

{table}

Shares of plans that end at the goal are means over goals; *difference* steers with the
score difference itself, the upper bound of any reward.
"""


def row(run: Path, result: dict[str, Any]) -> tuple:
    """One line of the table."""
    s = result["summary"]
    reached = s["reached"]
    return (
        result["maze"],
        f"{s['goals_recovered']}/{s['goals']}",
        f"{s['goals_counted']}/{s['goals']}",
        s["auroc"],
        s["correlation"],
        s["correlation_in_base"],
        s["correlation_in_expert"],
        s["map_spearman"],
        s["fvu"],
        s["window_fvu"],
        reached["unsteered"],
        reached[s["steered_name"]],
        reached["difference"],
        reached["expert"],
        minutes(run),
    )


def minutes(run: Path) -> str:
    """Minutes that the stages took, of their last calls if one was interrupted."""
    stages = [read_json(p) for p in sorted(run.glob("*/report.json"))]
    seconds = sum(s.get("seconds", 0.0) for s in stages)
    return f"{seconds / 60:.1f}"


def draw(path: Path, results: dict[Path, dict[str, Any]]) -> None:
    """One row of eight maps per maze."""
    fig, axes = figures.grid_of(8 * len(results), 8, size=1.9)
    for ax in axes:
        ax.axis("off")
    for i, (run, result) in enumerate(results.items()):
        walls = make_maze(result["maze"]).walls
        for name, goal in result["goals"].items():
            ax = axes[8 * i + int(name) - 1]
            ax.axis("on")
            a = read_arrays(run / "evaluation" / f"goal{name}.npz")
            edges = (a["x_edges"], a["y_edges"])
            title = f"{result['maze']}, goal {name}"
            figures.draw_map(ax, walls, edges, a["map"], np.array(goal["goal"]), title)
    figures.save(fig, path)


if __name__ == "__main__":
    sys.exit(guarded(lambda: say(main())))
