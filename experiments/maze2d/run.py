"""Maze2D, from physics to reward maps: data -> base -> experts -> rewards -> report.

Every stage has a folder under --workdir and is skipped once finished; run the same
command again after any interruption.
"""

import time
from pathlib import Path
from typing import Any

from configs.common import ConfigDict
from diffreward import data as d
from diffreward import report, train
from diffreward.learn import denoising_task
from diffreward.text import say
from diffreward.types import Params
from experiments import cost, samples, stages, validation
from experiments.build import optimiser
from experiments.maze2d import data, evaluate, page
from experiments.maze2d.build import ACT, REWARDS, Prepared, Run, Trained, build
from experiments.maze2d.check import check


def main(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Runs every stage that has not finished; returns the final report."""
    began = time.time()
    check(config)
    run = build(config, workdir)
    announce(run)
    data.make_data(run)
    prepared = data.prepare(run)
    base = train_base(run, prepared)
    experts = train_experts(run, prepared, base)
    rewards = [train_rewards(run, prepared, base, experts, name) for name in REWARDS]
    result = measure(run, prepared, Trained(base, experts, *rewards))
    page.write(run, result)
    say(f"report: {workdir / 'report.md'} ({time.time() - began:.0f} s in this call)")
    return result


def plan(config: ConfigDict, workdir: Path) -> None:
    """Checks a config and says what it would train; writes nothing."""
    check(config)
    announce(build(config, workdir))


def announce(run: Run) -> None:
    """Prints what the run will train, and about how long and in how much memory."""
    config, one = run.config, data.blank_windows(run)
    goals, experts = len(config.goals), run.experts
    rows = []
    for name, windows, members in (
        ("base", one, train.Members()),
        (
            "experts",
            d.stack_windows([one] * experts),
            train.Members(experts, d.MEMBER_AXES),
        ),
    ):
        task = denoising_task(run.model, config[name].batch_size)
        chain = optimiser(config[name])
        each = train.estimate(task, chain, data=windows, members=members)
        rows.append((name, config[name], members.population or 1, each))
    rows += cost.start_rows(config.start, run.model, [run.reward], one)
    for name in REWARDS:
        population = experts * config[name].seeds
        each = cost.reward_cost(config[name], run.model, one, population)
        rows.append((name, config[name], population, each))
    transitions = config.data.base_transitions + config.data.expert_transitions * goals
    cost.print_plan(rows, data_bytes=4 * (ACT + run.obs) * transitions)


def train_base(run: Run, prepared: Prepared) -> Params:
    """Trains the base denoiser; returns its averaged parameters."""
    section = run.config.base
    val = data.windows(run, prepared, prepared.base["val"])
    return stages.train_stage(
        run.workdir / "base",
        denoising_task(run.model, section.batch_size),
        section,
        **depends_on(run, "data"),
        data=data.windows(run, prepared, prepared.base["train"]),
        seed=run.config.seed,
        evaluate=validation.denoising_error(run.model, val),
    )


def train_experts(run: Run, prepared: Prepared, base: Params) -> Params:
    """Trains one expert per goal in one program, or one for all; stacked."""
    section = run.config.experts
    initial = base if section.init == "base" else None
    val = data.expert_windows(run, prepared, "val")
    return stages.train_stage(
        run.workdir / "experts",
        denoising_task(run.model, section.batch_size, initial),
        section,
        **depends_on(run, "data", "base"),
        data=data.expert_windows(run, prepared, "train"),
        members=train.Members(run.experts, d.MEMBER_AXES),
        seed=run.config.seed + 1,
        evaluate=validation.denoising_error(run.model, val, d.MEMBER_AXES),
    )


def train_rewards(
    run: Run, prepared: Prepared, base: Params, experts: Params, name: str
) -> Params:
    """Trains the rewards of all goals and seeds in one program.

    Args:
        run: of this maze.
        prepared: its data.
        base: parameters of the base.
        experts: of the experts, stacked.
        name: one of ``REWARDS``.
    """
    return stages.train_reward_stage(
        run.workdir / name,
        run.config[name],
        **depends_on(run, "data", "base", "experts"),
        start=run.config.start,
        seed=run.config.seed + 2,
        model=run.model,
        base=base,
        experts=experts,
        sets=lambda split: {
            "base": data.windows(run, prepared, prepared.base[split]),
            "expert": data.expert_windows(run, prepared, split),
        },
        samples=lambda: samples.model_samples(
            run.model,
            base,
            experts,
            data.resting_states(run),
            prepared.normaliser,
            act_dim=ACT,
            seed=run.config.seed,
        ),
    )


def depends_on(run: Run, *stages: str) -> dict[str, Any]:
    """What a training stage depends on beside its own section: the models, and stages."""
    # Stages that were trained before there were such keys had neither.
    more = {"limit": run.config.data.limit, "conditioned": run.config.conditioned}
    return {
        "settings": {"model": run.config.model.to_dict()}
        | {key: value for key, value in more.items() if value},
        "inputs": {name: report.stage_digest(run.folder(name)) for name in stages},
    }


def measure(run: Run, prepared: Prepared, trained: Trained) -> dict[str, Any]:
    """Evaluates every goal, or reads what was found before."""
    folder = run.workdir / "evaluation"
    inputs = {n: report.stage_digest(run.folder(n)) for n in ("data", *REWARDS)}
    settings = {"evaluation": run.config.evaluation.to_dict()}
    if not report.open_stage(folder, settings, inputs):
        say("evaluation: every goal on held-out data")
        started = time.time()
        results = evaluate.evaluate(run, prepared, trained)
        report.close_stage(folder, {**results, "seconds": time.time() - started})
    result = report.read_json(folder / "report.json")
    del result["seconds"]  # of this machine, not of this run
    return result
