"""PPO from scratch on the extracted, the true and a random reward of a maze.

Every policy has a folder under --workdir and is skipped once trained; run the same
command again after any interruption.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from configs.common import ConfigDict
from diffreward import measures, report
from experiments.rl import page
from experiments.rl.build import Job, Study, build, seeds
from experiments.rl.check import check
from experiments.rl.pay import FORMS, Payment, make_payment
from experiments.rl.ppo import find_library, train

RESAMPLES = 2000
"""Of the seeds, for every interval."""


def main(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Trains every policy that is missing; returns the final report."""
    check(config)
    find_library()  # before hours of what comes first
    study = build(config, workdir)
    records = train_policies(study)
    result = summarise(config, records)
    page.write(config, workdir, records, result)
    return result


def train_policies(study: Study) -> dict[Job, dict[str, Any]]:
    """What was found of every policy, now or before."""
    run, states = study.run.workdir, study.states.run.workdir
    inputs = {n: report.stage_digest(run / n) for n in ("data", "window_rewards")}
    for name in ("rewards", "discriminators"):
        inputs[f"states/{name}"] = report.stage_digest(states / name)
    shared, records = settings(study.config), {}
    # Made once for all seeds: some read a map of all the base's windows.
    payments: dict[Any, Payment] = {}
    for job in tqdm(study.jobs, unit="policy", desc="policies"):
        folder = job.folder(study.workdir)
        if not report.open_stage(folder, {**shared, **job._asdict()}, inputs):
            key = (job.goal, job.kind, job.seed if FORMS[job.kind].seeded else None)
            if key not in payments:
                payments[key] = make_payment(study, job)
            report.close_stage(folder, train(study, job, payments[key]))
        records[job] = report.read_json(folder / "report.json")
    return records


def settings(config: ConfigDict) -> dict[str, Any]:
    """What all policies depend on beside the stages they read."""
    keys = (
        "window_levels",
        "episode_steps",
        "steps",
        "evaluate_every",
        "evaluation_episodes",
    )
    measured = config.maze2d.evaluation.to_dict()
    return {
        **{key: config[key] for key in keys},
        "starts_seed": config.seed,  # "seed" is the policy's own
        "ppo": config.ppo.to_dict(),
        "state_levels": list(config.states.levels),
        "beta": config.states.beta,
        "map": {k: v for k, v in measured.items() if k.startswith("map_")},
    }


def summarise(config: ConfigDict, records: dict[Job, dict[str, Any]]) -> dict[str, Any]:
    """Returns by reward, their share of the true reward's, and regret, with intervals.

    The share of a set of goals is the mean over goals, with Student's interval over them:
    their shares vary with the goal and with the seeds of both rewards. Of a single goal the
    seeds are resampled. Regret resamples seeds within goals.
    """
    goals, every = list(config.goals), seeds(config)

    def returns(goal: int, kind: str) -> np.ndarray:
        return np.array([records[Job(goal, kind, s)]["return"] for s in every])

    def untrained(goal: int) -> np.ndarray:
        # Every policy starts from noise: of each seed the mean over what it is paid later.
        first = lambda kind, s: records[Job(goal, kind, s)]["curve"][0][1]
        return np.array([np.mean([first(k, s) for k in config.rewards]) for s in every])

    def ratio(ours: np.ndarray, true: np.ndarray) -> float:
        return float(ours.mean() / max(true.mean(), 1e-9))

    def share(kind: str) -> list[float]:
        samples = [(returns(g, kind), returns(g, "true")) for g in goals]
        if len(goals) == 1:
            return interval(ratio, *((sample,) for sample in samples[0]))
        each = np.array([[ratio(*pair)] for pair in samples])
        return list(measures.percentiles(each.mean(), measures.mean_draws(each)))

    def epic(kind: str) -> float | None:
        found = [records[Job(g, kind, every[0])]["epic"] for g in goals]
        return None if None in found else float(np.mean(found))

    def interval(f: Callable[..., Any], *groups: tuple[np.ndarray, ...]) -> list[float]:
        return list(measures.bootstrap(f, *groups, resamples=RESAMPLES))

    kinds = {}
    for kind in config.rewards:
        kinds[kind] = {
            "returns": {str(g): interval(np.mean, (returns(g, kind),)) for g in goals},
            "share": share(kind),
            "epic": epic(kind),
            "regret": regret(
                [
                    measures.PolicyReturns(
                        returns(g, "true"), returns(g, kind), untrained(g)
                    )
                    for g in goals
                ]
            ),
        }
    seconds = np.median([record["seconds"] for record in records.values()])
    return {
        "maze": config.maze2d.maze,
        "kinds": kinds,
        "untrained": {str(g): float(untrained(g).mean()) for g in goals},
        "steps_per_second": config.steps / float(seconds),
    }


def regret(tasks: list[measures.PolicyReturns]) -> list[float] | None:
    """Regret with its interval; None where the true reward's own policies learned nothing.

    There it has no scale.
    """
    if any(task.expert.mean() <= task.random.mean() for task in tasks):
        return None
    return list(measures.policy_regret(tasks, resamples=RESAMPLES))
