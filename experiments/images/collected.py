"""Audits side by side: seeds of one pair become one line, other pairs the next."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from diffreward.measures import mean_draws, percentiles
from diffreward.report import interval, markdown

Runs = Sequence[dict[str, Any]]


def page(results: Runs) -> str:
    """Tables of finished audits; intervals of several seeds are Student's over them."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["pair"], result["preset"]), []).append(result)
    parts = [
        "# Audits of image models",
        "",
        "Runs that differ in their seed alone (records, split, reward, rivals, judge) are",
        "one line: the mean, with Student's interval over seeds. A single run has its own.",
        "",
    ]
    parts += ["## What is kept above what is avoided (AUROC)", "", scores(groups), ""]
    drawn = steering(groups)
    return "\n".join([*parts, "## What is drawn", "", drawn] if drawn else parts)


def scores(groups: dict[tuple[str, str], list[dict[str, Any]]]) -> str:
    """Every score on everything that is known of kinds."""
    lines, names = [], []
    for (pair, preset), runs in groups.items():
        first = runs[0].get("content", {"scores": ["reward"], "groups": []})
        names += [n for n in first["scores"] if n not in names]
        own = over(runs, lambda r: r["auroc"])
        lines.append([pair, preset, str(len(runs)), "expert above base", {"reward": own}])
        for i, group in enumerate(first["groups"]):
            row = {
                n: over(runs, lambda r, i=i, n=n: r["content"]["groups"][i][n])
                for n in first["scores"]
            }
            lines.append([pair, preset, str(len(runs)), group["name"], row])
    table = [
        [
            *line[:-1],
            *(interval(line[-1][n], ".3f") if n in line[-1] else "" for n in names),
        ]
        for line in lines
    ]
    return markdown(["pair", "preset", "seeds", "of", *names], table)


def steering(groups: dict[tuple[str, str], list[dict[str, Any]]]) -> str:
    """Shares that the judge sees, and how samples lie to real pictures."""
    lines: list[list[Any]] = []
    columns: list[str] = []
    for (pair, preset), runs in groups.items():
        for i, row in enumerate(runs[0].get("steering", [])):
            own = [n for n in row if n not in ("name", "requests")]
            columns += [n for n in own if n not in columns]
            found = {n: over(runs, lambda r, i=i, n=n: r["steering"][i][n]) for n in own}
            lines.append([pair, preset, row["name"], found])
    table = [
        [
            *line[:-1],
            *(interval(line[-1][n], ".3f") if n in line[-1] else "" for n in columns),
        ]
        for line in lines
    ]
    return markdown(["pair", "preset", "model", *columns], table) if lines else ""


def over(runs: Runs, triple: Callable[[dict[str, Any]], Sequence[float]]) -> list[float]:
    """Mean over seeds of a number with Student's interval; of one run, its own."""
    found = [triple(run) for run in runs]
    if len(found) == 1:
        return list(found[0])
    values = np.array([[value for value, *_ in found]])
    return list(percentiles(float(values.mean()), mean_draws(values)))
