"""Every method on the same episodes, and the numbers of the table."""

from pathlib import Path
from typing import Any

import numpy as np

from diffreward import data as d
from diffreward.measures import bootstrap, interquartile_mean
from diffreward.text import say
from experiments.locomotion.data import Prepared
from experiments.locomotion.record import Run, Trained
from experiments.locomotion.rewards import measure_rewards
from experiments.locomotion.rollouts import (
    Act,
    Arrays,
    evaluate_method,
    make_act,
    read,
    save,
)
from experiments.locomotion.rows import methods


def evaluate(
    run: Run, folder: Path, prepared: Prepared, trained: Trained
) -> dict[str, Any]:
    """Runs all methods; episodes of each go to ``folder/<method>.npz``.

    A method whose file is there is not run again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Arrays] = {}
    results: dict[str, dict[str, Any]] = {}
    # Methods that differ in parameters or scale alone share one compiled program.
    acts: dict[Any, Act] = {}
    for name, method in methods(run, trained).items():
        path = folder / f"{name}.npz"
        if not path.exists():
            key = (method.eps_fn, method.rank_by)
            act = acts.setdefault(key, make_act(run, prepared.normaliser, method))
            save(path, evaluate_method(run, act, name, method))
        found[name] = read(path)
        results[name] = summarise(run.config.task, found[name])
        say(f"{name}: score {results[name]['score'][0]:.1f}")
    for name, closed in gap_closures(found).items():
        results[name]["gap_closure"] = closed
    return {
        "task": run.config.task,
        "methods": results,
        "rewards": measure_rewards(run, prepared, trained),
    }


def summarise(task: str, arrays: Arrays) -> dict[str, Any]:
    """Scores with intervals; seeds are strata, episodes are what is resampled."""
    scores = d.normalised_score(task, arrays["returns"].ravel())
    scores = scores.reshape(arrays["returns"].shape)
    pooled = lambda f: lambda *rows: float(f(np.concatenate(rows)))
    seeds = [(row,) for row in scores]
    steps = int(arrays["lengths"].sum())
    seconds = float(arrays["planner_seconds"] + arrays["physics_seconds"])
    return {
        "score": list(bootstrap(pooled(np.mean), *seeds)),
        "iqm": list(bootstrap(pooled(interquartile_mean), *seeds)),
        "return": float(arrays["returns"].mean()),
        "length": float(arrays["lengths"].mean()),
        "by_seed": scores.mean(1).tolist(),
        "episodes": int(scores.size),
        "scale": float(arrays["scale"]),
        "tried": arrays["tried"].tolist(),
        "steps_per_second": steps / max(seconds, 1e-9),
        "planner_seconds": float(arrays["planner_seconds"]),
        "physics_seconds": float(arrays["physics_seconds"]),
    }


def gap_closures(found: dict[str, Arrays]) -> dict[str, list[float]]:
    """(method - unsteered) / (expert - unsteered) of every other row, with intervals."""
    returns = {name: arrays["returns"].ravel() for name, arrays in found.items()}
    ends = "unsteered", "expert"

    def gap(steered: np.ndarray, base: np.ndarray, expert: np.ndarray) -> float:
        span = expert.mean() - base.mean()
        return float((steered.mean() - base.mean()) / span) if span else float("nan")

    def closed(name: str) -> list[float]:
        return list(bootstrap(gap, *((returns[n],) for n in (name, *ends))))

    return {name: closed(name) for name in found if name not in ends}
