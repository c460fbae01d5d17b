"""Maze2D, from physics to reward maps: data -> base -> experts -> rewards -> report.

Every stage has a folder under --workdir and is skipped once finished; run the same
command again after any interruption.
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.common import ConfigDict, choose
from diffreward import data as d
from diffreward import report, train
from diffreward.learn import SOURCES, Denoiser, denoising_task
from diffreward.text import say
from diffreward.types import Params
from experiments import cost, limits, samples, stages, validation
from experiments.build import build_denoiser, build_reward, optimiser
from experiments.maze2d import evaluate, page


class Prepared(NamedTuple):
    """The data of one run: episodes by split, and the coordinates of every model."""

    maze: d.Maze
    normaliser: d.Normaliser
    base: dict[str, d.Episodes]
    experts: list[dict[str, d.Episodes]]


def main(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Runs every stage that has not finished; returns the final report."""
    began = time.time()
    check(config)
    announce(config)
    make_data(config, workdir)
    prepared = prepare(config, workdir)
    model = build_denoiser(config.model, act_dim=2, obs_dim=4)

    base = train_base(config, workdir, prepared, model)
    experts = train_experts(config, workdir, prepared, model, base)
    rewards = {
        name: train_rewards(config, workdir, prepared, model, base, experts, name)
        for name in ("rewards", "window_rewards")
    }
    folder = workdir / "evaluation"
    inputs = {n: report.stage_digest(workdir / n) for n in ("data", *rewards)}
    settings = {"evaluation": config.evaluation.to_dict()}
    if not report.open_stage(folder, settings, inputs):
        say("evaluation: every goal on held-out data")
        started = time.time()
        results = evaluate.evaluate(config, folder, prepared, model, base, experts, rewards)
        report.close_stage(folder, {**results, "seconds": time.time() - started})
    result = report.read_json(folder / "report.json")
    del result["seconds"]  # of this machine, not of this run
    page.write(config, workdir, prepared, result)
    say(f"report: {workdir / 'report.md'} ({time.time() - began:.0f} s in this call)")
    return result


def check(config: ConfigDict) -> None:
    """Refuses values that a stage would only meet much later."""
    choose("maze", config.maze, d.MAZE_NAMES)
    goals = list(config.goals)
    known = [g for g in goals if type(g) is int and 1 <= g <= 8]
    if not goals or len(set(known)) < len(goals):
        raise ValueError(f"goals must be different numbers from 1 to 8, got {goals}")
    limits.check_seed(config.seed)
    limits.check_model(config.model)
    model = build_denoiser(config.model, act_dim=2, obs_dim=4)
    for name in ("rewards", "window_rewards"):
        section = config[name]
        choose(f"{name}.source", section.source, SOURCES)
        limits.check_window(section, name, config.model.horizon)
        build_reward(section, model)
    limits.check_training(config, "base", "experts", "rewards", "window_rewards")
    check_data(config)
    check_evaluation(config)
    choose("experts.init", config.experts.init, ("base", "scratch"))


def check_data(config: ConfigDict) -> None:
    """Refuses datasets without rows, or of no episode."""
    names = ("base_transitions", "expert_transitions", "frame_skip", "max_steps")
    limits.at_least(config.data, "data", **dict.fromkeys(names, 1))
    limits.at_least(config.data, "data", action_noise=0, hold=0, processes=0)


def check_evaluation(config: ConfigDict) -> None:
    """Refuses measurements of nothing."""
    e, name = config.evaluation, "evaluation"
    names = ("episodes", "windows", "noises", "plans", "map_episodes", "map_min_count")
    limits.at_least(e, name, **dict.fromkeys(names, 1), map_smoothing=0)
    limits.positive(e, name, "reach", "map_bin")
    limits.shares(e, name, "map_quantile")
    limits.check_scales(e.scales)
    choose("evaluation.space", e.space, ("eps", "mean", "input"))


def announce(config: ConfigDict) -> None:
    """Prints what the run will train, and about how long and in how much memory."""
    model = build_denoiser(config.model, act_dim=2, obs_dim=4)
    one = _blank_windows(config)
    members = d.stack_windows([one] * len(config.goals))
    rows = []
    for name in ("base", "experts", "rewards", "window_rewards"):
        section = config[name]
        alike = train.Members()
        if name == "base":
            task, data = denoising_task(model, section.batch_size), one
        elif name == "experts":
            task, data = denoising_task(model, section.batch_size), members
            alike = train.Members(len(config.goals), d.MEMBER_AXES)
        else:
            population = len(config.goals) * section.seeds
            each = cost.reward_cost(section, model, one, population)
            rows.append((name, section, population, each))
            continue
        each = train.estimate(task, optimiser(section), data=data, members=alike)
        rows.append((name, section, alike.population or 1, each))
    transitions = config.data.base_transitions
    transitions += config.data.expert_transitions * len(config.goals)
    cost.print_plan(rows, data_bytes=24 * transitions)


def _blank_windows(config: ConfigDict) -> d.Windows:
    """One window of zeros: shapes are all an estimate needs."""
    rows = config.model.horizon + 1
    timeouts = np.arange(rows) == rows - 1
    zeros = np.zeros((rows, 4), np.float32)
    episodes = d.Episodes.from_arrays(zeros, zeros[:, :2], timeouts=timeouts)
    normaliser = d.Normaliser(np.zeros(6, np.float32), np.ones(6, np.float32))
    return d.make_windows(episodes, normaliser, horizon=config.model.horizon, pad=False)


def make_data(config: ConfigDict, workdir: Path) -> None:
    """Generates base and expert trajectories in the simulator."""
    folder, section = workdir / "data", config.data
    settings = {
        "maze": config.maze,
        "goals": list(config.goals),
        "seed": config.seed,
        # How many processes share the work changes no byte of it.
        "data": {k: v for k, v in section.to_dict().items() if k != "processes"},
    }
    if report.open_stage(folder, settings):
        say("data: done before")
        return
    recipe = d.Recipe(
        frame_skip=section.frame_skip,
        action_noise=section.action_noise,
        hold=section.hold,
        max_steps=section.max_steps,
    )
    began = time.time()
    kinds: tuple[tuple[str, tuple, int], ...] = (
        ("base", (None,), section.base_transitions),
        ("experts", tuple(config.goals), section.expert_transitions),
    )
    for name, goals, transitions in kinds:
        d.generate(
            folder / name,
            config.maze,
            goals,
            transitions=transitions,
            seed=config.seed,
            recipe=recipe,
            processes=section.processes,
        )
    report.close_stage(folder, {"seconds": time.time() - began})


def prepare(config: ConfigDict, workdir: Path) -> Prepared:
    """Reads the data, splits it by episode and fits the shared normaliser."""
    folder = workdir / "data"

    def by_split(episodes: d.Episodes, seed: int) -> dict[str, d.Episodes]:
        parts = d.split_episodes(len(episodes.starts), seed)
        return {name: d.select(episodes, index) for name, index in parts.items()}

    base = by_split(d.load(folder / "base", config.maze, None), config.seed)
    experts = [
        by_split(d.load(folder / "experts", config.maze, goal), config.seed)
        for goal in config.goals
    ]
    normaliser = d.fit_limits(d.transitions(base["train"]))
    return Prepared(d.make_maze(config.maze), normaliser, base, experts)


def windows(config: ConfigDict, prepared: Prepared, episodes: d.Episodes) -> d.Windows:
    """Windows of one set of episodes."""
    return d.make_windows(
        episodes,
        prepared.normaliser,
        horizon=config.model.horizon,
        pad=config.model.pad,
        balance="episode",
    )


def expert_windows(config: ConfigDict, prepared: Prepared, split: str) -> d.Windows:
    """Windows of all experts, one member each."""
    return d.stack_windows(
        [windows(config, prepared, expert[split]) for expert in prepared.experts]
    )


def train_base(
    config: ConfigDict, workdir: Path, prepared: Prepared, model: Denoiser
) -> Params:
    """Trains the base denoiser; returns its averaged parameters."""
    task = denoising_task(model, config.base.batch_size)
    return stages.train_stage(
        workdir / "base",
        task,
        config.base,
        settings={"model": config.model.to_dict()},
        inputs={"data": report.stage_digest(workdir / "data")},
        data=windows(config, prepared, prepared.base["train"]),
        seed=config.seed,
        evaluate=validation.denoising_error(
            model, windows(config, prepared, prepared.base["val"])
        ),
    )


def train_experts(
    config: ConfigDict,
    workdir: Path,
    prepared: Prepared,
    model: Denoiser,
    base: Params,
) -> Params:
    """Trains one expert per goal in one program; parameters are stacked."""
    initial = base if config.experts.init == "base" else None
    task = denoising_task(model, config.experts.batch_size, initial)
    inputs = {n: report.stage_digest(workdir / n) for n in ("data", "base")}
    return stages.train_stage(
        workdir / "experts",
        task,
        config.experts,
        settings={"model": config.model.to_dict()},
        inputs=inputs,
        data=expert_windows(config, prepared, "train"),
        members=train.Members(len(config.goals), d.MEMBER_AXES),
        seed=config.seed + 1,
        evaluate=validation.denoising_error(
            model, expert_windows(config, prepared, "val"), d.MEMBER_AXES
        ),
    )


def train_rewards(
    config: ConfigDict,
    workdir: Path,
    prepared: Prepared,
    model: Denoiser,
    base: Params,
    experts: Params,
    name: str,
) -> Params:
    """Trains the rewards of all goals and seeds in one program."""
    return stages.train_reward_stage(
        workdir / name,
        config[name],
        settings={"model": config.model.to_dict()},
        inputs={n: report.stage_digest(workdir / n) for n in ("data", "base", "experts")},
        seed=config.seed + 2,
        model=model,
        base=base,
        experts=experts,
        sets=lambda split: {
            "base": windows(config, prepared, prepared.base[split]),
            "expert": expert_windows(config, prepared, split),
        },
        samples=lambda: samples.model_samples(
            model,
            base,
            experts,
            resting_states(prepared.maze, config.seed),
            prepared.normaliser,
            act_dim=2,
            seed=config.seed,
        ),
    )


def resting_states(maze: d.Maze, seed: int, count: int = 1024) -> np.ndarray:
    """Observations at rest at free places of the maze."""
    states = np.zeros((count, 4), np.float32)
    states[:, :2] = d.sample_free(maze, np.random.default_rng(seed), count)
    return states
