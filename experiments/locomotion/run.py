"""Locomotion: data -> base, expert -> rewards and baselines -> rollouts -> table.

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
from experiments import cost
from experiments.build import build_denoiser, build_reward, build_scalar, optimiser
from experiments.locomotion import page
from experiments.locomotion.check import check
from experiments.locomotion.data import Prepared, blank_windows, make_data, prepare
from experiments.locomotion.evaluate import evaluate
from experiments.locomotion.record import REWARDS, Run, Trained
from experiments.locomotion.rows import wanted
from experiments.locomotion.training import (
    BASELINES,
    discriminator_task,
    round_name,
    train_all,
)


def main(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Runs every stage that has not finished; returns the final report."""
    began = time.time()
    run = build(config, workdir)
    announce(run)
    make_data(run)
    prepared = prepare(run)
    trained = train_all(run, prepared)
    result = evaluate_stage(run, prepared, trained)
    page.write(run, result)
    say(f"report: {workdir / 'report.md'} ({time.time() - began:.0f} s in this call)")
    return result


def plan(config: ConfigDict, workdir: Path) -> None:
    """Checks a config and says what it would train; writes nothing."""
    announce(build(config, workdir))


def build(config: ConfigDict, workdir: Path) -> Run:
    """Checks a config and builds what it describes; nothing is written.

    Raises:
        ValueError: naming what no stage could use.
    """
    check(config)
    task = d.LOCOMOTION[config.task]
    denoiser = build_denoiser(config.model, task.act_dim, task.obs_dim, config.expert_model)
    return Run(
        config=config,
        workdir=workdir,
        task=task,
        denoiser=denoiser,
        rewards={name: build_reward(config[name], denoiser) for name in REWARDS},
        discriminator=build_scalar(config.discriminator),
        value=build_scalar(config.value),
    )


def announce(run: Run) -> None:
    """Prints what the run will train, and about how long and in how much memory."""
    config, one = run.config, blank_windows(run)
    rows = []

    def add(name: str, task: train.Task, data: Any, seeds: int | None = None) -> None:
        section, members = config[name], train.Members(seeds)
        each = train.estimate(task, optimiser(section), data=data, members=members)
        rows.append((name, section, seeds or 1, each))

    for name, model in (("base", run.denoiser), ("expert", run.denoiser.of_expert)):
        add(name, denoising_task(model, config[name].batch_size), one)
    rows += cost.start_rows(config.start, run.denoiser, run.rewards.values(), one)
    for name in run.rewards:
        section = config[name]
        each = cost.reward_cost(section, run.denoiser, one, section.seeds)
        rows.append((name, section, section.seeds, each))
    if "discriminator" in wanted(run):
        both, seeds = {"base": one, "expert": one}, config.discriminator.seeds
        add("discriminator", discriminator_task(run), both, seeds)
    row_bytes = 8 * run.denoiser.shape[1]
    cost.print_plan(rows, data_bytes=row_bytes * config.data.transitions)


def evaluate_stage(run: Run, prepared: Prepared, trained: Trained) -> dict[str, Any]:
    """Rollouts and measurements of all that was trained; returns their report."""
    config, folder = run.config, run.workdir / "evaluation"
    names = ["data", "expert", *run.rewards, "base"]
    names += [round_name(n) for n in range(1, config.rewards.rounds + 1)]
    # Those that are there even if no row asks for them: episodes that they played are kept.
    there = lambda name: (run.workdir / name / "report.json").exists()
    names += [name for name in BASELINES if name in wanted(run) or there(name)]
    names += ["other_base"] if config.other_base else []
    settings = {"evaluation": config.evaluation.to_dict(), "seed": config.seed}
    if not report.open_stage(folder, settings, run.digests(*names)):
        began = time.time()
        results = evaluate(run, folder, prepared, trained)
        report.close_stage(folder, {**results, "seconds": time.time() - began})
    return report.read_json(folder / "report.json")
