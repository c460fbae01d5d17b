"""Every method on the same episodes, and the numbers of the table."""

from pathlib import Path
from typing import Any

import numpy as np

from diffreward import data as d
from diffreward.measures import (
    interquartile_mean,
    mean_draws,
    percentiles,
    steps_to_failure,
    survival,
)
from diffreward.text import say
from experiments.locomotion.data import Prepared
from experiments.locomotion.record import Run, Trained
from experiments.locomotion.rewards import measure_rewards
from experiments.locomotion.rollouts import (
    Act,
    Arrays,
    Played,
    evaluate_method,
    make_act,
    read,
    save,
)
from experiments.locomotion.rows import MEANING, methods

HALF = 0.5
"""Of the mean reward in the expert's data: what counts as going well."""


def evaluate(
    run: Run, folder: Path, prepared: Prepared, trained: Trained
) -> dict[str, Any]:
    """Runs all methods; episodes of each go to ``folder/<method>.npz``.

    A method whose file is there is not run again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Arrays] = {}
    results: dict[str, dict[str, Any]] = {}
    least = HALF * float(prepared.expert["train"].rewards.mean())
    # Methods that differ in parameters or scale alone share one compiled program.
    acts: dict[Any, Act] = {}
    done: dict[Any, Played] = {}
    for name, method in methods(run, trained).items():
        path = folder / f"{name}.npz"
        if not path.exists():
            key = (method.eps_fn, method.rank_by, method.sampler)
            act = acts.setdefault(key, make_act(run, prepared.normaliser, method))
            save(path, evaluate_method(run, act, name, method, done))
        found[name] = read(path)
        results[name] = summarise(run.config.task, found[name], least)
        say(f"{name}: score {results[name]['score'][0]:.1f}")
    for name, closed in gap_closures(found).items():
        results[name]["gap_closure"] = closed
    return {
        "task": run.config.task,
        "methods": results,
        "rewards": measure_rewards(run, prepared, trained, found["score"].get("visited")),
    }


def summarise(task: str, arrays: Arrays, least: float) -> dict[str, Any]:
    """Scores with intervals over all that varies; ``least`` reward per step goes well."""
    scores = d.normalised_score(task, arrays["returns"])
    lengths, rewards = (np.concatenate(arrays[n]) for n in ("lengths", "rewards"))
    times = steps_to_failure(rewards, lengths, least)
    steps = int(arrays["lengths"].sum())
    seconds = float(arrays["planner_seconds"] + arrays["physics_seconds"])
    return {
        "score": list(percentiles(scores.mean(), mean_draws(scores))),
        "iqm": interquartile_mean(scores),
        "return": float(arrays["returns"].mean()),
        "length": float(arrays["lengths"].mean()),
        "failure": float(np.median(times)),
        "survival": survival(times, rewards.shape[1]),
        "by_seed": scores.mean(1).tolist(),
        "episodes": int(scores.size),
        "scale": float(arrays["scale"]),
        "t_stop": int(arrays["t_stop"]),
        "tried": arrays["tried"].tolist(),
        "steps_per_second": steps / max(seconds, 1e-9),
        "planner_seconds": float(arrays["planner_seconds"]),
        "physics_seconds": float(arrays["physics_seconds"]),
    }


def gap_closures(found: dict[str, Arrays]) -> dict[str, list[float]]:
    """(method - unsteered) / (expert - unsteered) of every other row, with intervals."""
    ends = "unsteered", "expert"
    means = {name: float(arrays["returns"].mean()) for name, arrays in found.items()}
    # Every row has draws of its own: rows share episodes, but not what happens in them.
    draws = {
        name: mean_draws(arrays["returns"], seed=list(MEANING).index(name))
        for name, arrays in found.items()
    }

    def closed(of: dict[str, Any], name: str) -> Any:
        base, expert = (of[end] for end in ends)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.divide(of[name] - base, expert - base)

    return {
        name: list(percentiles(closed(means, name), closed(draws, name)))
        for name in found
        if name not in ends
    }
