"""PPO from scratch on the extracted, the true and a random reward of a maze.

Every policy has a folder under --workdir and is skipped once trained; run the same
command again after any interruption.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from configs.common import ConfigDict
from diffreward import data as d
from diffreward import files, measures, report
from diffreward.learn import Denoiser, RewardModel
from diffreward.report import figures
from diffreward.report.canvas import EngFormatter
from diffreward.steer import stepwise, wrappers
from diffreward.text import say
from diffreward.types import Params
from experiments.build import build_denoiser, build_reward
from experiments.maze2d import evaluate as maze2d_evaluate
from experiments.maze2d import run as maze2d
from experiments.rl.check import check

COLOURS = {
    "true": figures.EXPERT,
    "extracted": figures.STEERED,
    "random": figures.BASE,
}
ACT, OBS = 2, 4
SCALING_WINDOWS = 4096


class Job(NamedTuple):
    """One policy."""

    goal: int
    kind: str
    seed: int

    def folder(self, workdir: Path) -> Path:
        """Where it is written."""
        return workdir / f"goal{self.goal}" / f"{self.kind}-{self.seed}"


class Source(NamedTuple):
    """What a maze run hands over."""

    prepared: maze2d.Prepared
    model: Denoiser
    reward: RewardModel
    window: int
    params: Params
    """Of the window rewards, stacked: member = goal * seeds."""


def main(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Trains every policy that is missing; returns the final report."""
    check(config)
    run = files.user_path(config.run)
    # What is missing there is trained there, so the folder is ours as long.
    with files.claim(run, "--config.run"):
        source = read_source(config)
    inputs = {n: report.stage_digest(run / n) for n in ("data", "window_rewards")}
    jobs = [
        Job(goal, kind, seed)
        for seed in range(config.seeds)
        for goal in config.goals
        for kind in config.rewards
    ]
    keys = (
        "seed",
        "credit",
        "ranked",
        "levels",
        "episode_steps",
        "steps",
        "evaluate_every",
    )
    shared = {k: config[k] for k in keys} | {"ppo": config.ppo.to_dict()}
    shared["evaluation_episodes"] = config.evaluation_episodes
    measured = config.maze2d.evaluation.to_dict()
    shared["map"] = {k: v for k, v in measured.items() if k.startswith("map_")}
    with tqdm(total=len(jobs), unit="policy", desc="policies") as bar:
        for job in jobs:
            folder = job.folder(workdir)
            if not report.open_stage(folder, {**shared, **job._asdict()}, inputs):
                report.close_stage(folder, train(config, source, job))
            bar.update()
    records = {job: report.read_json(job.folder(workdir) / "report.json") for job in jobs}
    result = summarise(config, records)
    report.write_json(workdir / "report.json", result)
    write_page(config, workdir, records, result)
    return result


def read_source(config: ConfigDict) -> Source:
    """The maze run's data and window rewards; trains what is not there yet."""
    run, section = files.user_path(config.run), config.maze2d
    maze2d.make_data(section, run)
    prepared = maze2d.prepare(section, run)
    model = build_denoiser(section.model, act_dim=ACT, obs_dim=OBS)
    base = maze2d.train_base(section, run, prepared, model)
    experts = maze2d.train_experts(section, run, prepared, model, base)
    params = maze2d.train_rewards(
        section, run, prepared, model, base, experts, "window_rewards"
    )
    reward = build_reward(section.window_rewards, model)
    window = section.window_rewards.window or section.model.horizon
    return Source(prepared, model, reward, window, params)


Raw = Callable[[wrappers.History, np.ndarray], np.ndarray]
"""Reward of the newest step from the history and the true rewards, not yet scaled."""


def make_pay(config: ConfigDict, source: Source, job: Job) -> Raw:
    """The reward a policy is paid, with mean 0 and deviation 1 on the base's data.

    The random one is the extracted one's network with fresh parameters, credited to
    steps in the same way.
    """
    if job.kind == "true":
        raw: Raw = lambda history, true: true
    else:
        params = reward_params(config, source, job)
        credit = credit_states if config.credit == "state" else credit_windows
        raw = credit(config, source, params)
    whole_windows = job.kind != "true" and config.credit == "window"
    rows = sample_windows(source)
    history = wrappers.History(rows, np.full(len(rows), source.window))
    goal = source.prepared.maze.goals[job.goal - 1]
    sample = raw(history, d.true_reward(rows[:, -1, ACT:], goal))
    shift, scale = sample.mean(), max(float(sample.std()), 1e-6)

    def pay(history: wrappers.History, true: np.ndarray) -> np.ndarray:
        paid = (raw(history, true) - shift) / scale
        return np.where(history.complete, paid, 0.0) if whole_windows else paid

    return pay


def reward_params(config: ConfigDict, source: Source, job: Job) -> Params:
    """The extracted reward of the job's goal, or a random one of the job's seed."""
    if job.kind == "random":
        x = jnp.zeros(source.model.shape)
        key = jax.random.key(job.seed)
        return source.reward.network.init(key, x, jnp.zeros((), jnp.int32))
    member = list(config.maze2d.goals).index(job.goal) * config.maze2d.window_rewards.seeds
    return jax.tree.map(lambda x: x[member], source.params)


def sample_windows(source: Source) -> np.ndarray:
    """Rows ``[action, observation]`` of windows of the base's data, not normalised."""
    windows = d.make_windows(
        source.prepared.base["train"],
        source.prepared.normaliser,
        horizon=source.window,
        pad=False,
    )
    x = d.draw(windows, jax.random.key(1), SCALING_WINDOWS, source.window)["x_0"]
    return d.unnormalise(source.prepared.normaliser, np.asarray(x))


def credit_states(config: ConfigDict, source: Source, params: Params) -> Raw:
    """Pays what the reward map says of the place.

    The windows are the base's, as in the Maze2D report but from training episodes. A
    ratio of windows pays every move that the expert makes more often than the base, and
    can be earned again and again on the way; the map ranks places. With ``ranked`` a place
    is paid how few of the base's places are as good, not how good: maps are nearly flat
    around their peak, ranks are not.
    """
    values = maze2d_evaluate.make_window_values(source.model, source.reward)
    episodes = source.prepared.base["train"]
    count = min(config.maze2d.evaluation.map_episodes, len(episodes.starts))
    grid, shown = maze2d_evaluate.reward_map(
        config.maze2d,
        source.prepared,
        lambda x: values(params, x),
        d.select(episodes, np.arange(count)),
    )

    def value(rows: np.ndarray) -> np.ndarray:
        return measures.look_up(grid, shown, rows[:, -1, ACT : ACT + 2])

    if not config.ranked:
        return lambda history, true: value(history.rows)
    seen = value(sample_windows(source))
    return lambda history, true: measures.surprise(value(history.rows), seen)


def credit_windows(config: ConfigDict, source: Source, params: Params) -> Raw:
    """Pays every step the value of the window it completes, over the window's length."""
    num_steps = source.model.schedule.num_steps
    value_fn = stepwise.clean_reward(
        source.reward.window_fn(params),
        source.model.schedule,
        jax.random.key(0),
        jnp.arange(config.levels, dtype=jnp.int32) * (num_steps // config.levels),
        num_noises=0,
    )
    payment = wrappers.make_payment(value_fn, source.prepared.normaliser, source.window)
    return lambda history, true: payment(history)


def train(config: ConfigDict, source: Source, job: Job) -> dict[str, Any]:
    """Trains one policy; the true return of its test episodes against steps."""
    try:
        from sbx import PPO  # pyright: ignore[reportMissingImports]

        from experiments.rl.env import MazeVecEnv
    except ImportError as error:
        raise ValueError(
            f"training a policy needs an RL library ({error}); pip install -e '.[rl]'"
        ) from error
    began, p = time.time(), config.ppo
    goal = source.prepared.maze.goals[job.goal - 1]

    def make_env(pay: Any, num_envs: int, seed: list[int], stagger: bool) -> Any:
        return MazeVecEnv(
            source.prepared.maze,
            goal,
            source.prepared.normaliser,
            pay,
            num_envs=num_envs,
            frame_skip=config.maze2d.data.frame_skip,
            episode_steps=config.episode_steps,
            window=source.window,
            seed=seed,
            stagger=stagger,
        )

    seeds = {"train": [config.seed, job.seed, 0], "test": [config.seed, 0, 1]}
    env = make_env(make_pay(config, source, job), p.num_envs, seeds["train"], True)
    episodes = config.evaluation_episodes
    test = make_env(lambda history, true: true, episodes, seeds["test"], False)
    agent = PPO(
        "MlpPolicy",
        env,
        n_steps=p.rollout,
        batch_size=p.batch_size,
        n_epochs=p.epochs,
        learning_rate=p.learning_rate,
        gamma=p.gamma,
        gae_lambda=p.gae_lambda,
        ent_coef=p.entropy,
        seed=job.seed,
    )

    def evaluate() -> np.ndarray:
        # The same starts for every policy and every evaluation, seen by no training.
        test.rng = np.random.default_rng(seeds["test"])
        observation, total = test.reset(), np.zeros(episodes)
        for _ in range(config.episode_steps):
            action, _ = agent.predict(observation, deterministic=True)
            test.step_async(action)
            observation, reward, _, _ = test.step_wait()
            total += reward
        return total

    curve, returns = [], evaluate()
    curve.append((0, float(returns.mean())))
    while agent.num_timesteps < config.steps:
        count = min(config.evaluate_every, config.steps - agent.num_timesteps)
        agent.learn(count, reset_num_timesteps=False, log_interval=None)
        returns = evaluate()
        curve.append((int(agent.num_timesteps), float(returns.mean())))
    return {
        "curve": curve,
        "return": curve[-1][1],
        "reached": float((returns > 0).mean()),
        "seconds": time.time() - began,
    }


def summarise(config: ConfigDict, records: dict[Job, dict[str, Any]]) -> dict[str, Any]:
    """Returns by reward, their share of the true reward's, and regret, with intervals.

    The share of a set of goals is the mean over goals; seeds are resampled within every
    goal and reward (strata).
    """
    goals = list(config.goals)

    def returns(goal: int, kind: str) -> np.ndarray:
        return np.array(
            [records[Job(goal, kind, s)]["return"] for s in range(config.seeds)]
        )

    def untrained(goal: int) -> float:
        # Every policy starts from noise; all of them are the floor that regret needs.
        starts = [r["curve"][0][1] for job, r in records.items() if job.goal == goal]
        return float(np.mean(starts))

    floors = [untrained(goal) for goal in goals]

    def share(*samples: np.ndarray) -> float:
        ours, true = samples[: len(goals)], samples[len(goals) :]
        pairs = zip(ours, true, strict=True)
        return float(np.mean([a.mean() / max(b.mean(), 1e-9) for a, b in pairs]))

    def regret(*samples: np.ndarray) -> float:
        ours, true = samples[: len(goals)], samples[len(goals) :]
        parts = [
            (b.mean() - a.mean()) / max(b.mean() - floor, 1e-9)
            for a, b, floor in zip(ours, true, floors, strict=True)
        ]
        return float(np.mean(parts))

    interval = lambda f, *groups: list(measures.bootstrap(f, *groups, resamples=2000))
    result: dict[str, Any] = {"maze": config.maze2d.maze, "kinds": {}}
    for kind in config.rewards:
        kinds = (kind, "true")
        samples = [(returns(g, k),) for k in kinds for g in goals]
        result["kinds"][kind] = {
            "returns": {
                str(g): list(
                    measures.bootstrap(np.mean, (returns(g, kind),), resamples=2000)
                )
                for g in goals
            },
            "share": interval(share, *samples),
            "regret": interval(regret, *samples),
        }
    result["untrained"] = dict(zip(map(str, goals), floors, strict=True))
    result["steps_per_second"] = config.steps / float(
        np.median([r["seconds"] for r in records.values()])
    )
    return result


def write_page(
    config: ConfigDict,
    workdir: Path,
    records: dict[Job, dict[str, Any]],
    result: dict[str, Any],
) -> None:
    """Learning curves and a table."""
    fig, axes = figures.grid_of(len(config.goals), len(config.goals), size=3.4)
    for ax, goal in zip(axes, config.goals, strict=True):
        for kind in config.rewards:
            curves = np.array(
                [records[Job(goal, kind, s)]["curve"] for s in range(config.seeds)]
            )
            steps, values = curves[0, :, 0], curves[:, :, 1]
            ax.plot(steps, values.mean(0), color=COLOURS[kind], label=kind)
            ax.fill_between(
                steps, values.min(0), values.max(0), color=COLOURS[kind], alpha=0.2
            )
        ax.set(xlabel="steps", ylabel="true return", title=f"goal {goal}")
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    figures.save(fig, workdir / "figures" / "learning.png")

    rows = [
        [
            kind,
            *(report.interval(found["returns"][str(g)], ".1f") for g in config.goals),
            report.interval([100 * v for v in found["share"]], ".1f"),
            report.interval(found["regret"], ".3f"),
        ]
        for kind, found in result["kinds"].items()
    ]
    header = [
        "trained on",
        *(f"true return, goal {g}" for g in config.goals),
        "share of the true reward's return, %",
        "regret",
    ]
    lines = [
        f"# PPO from scratch, {config.maze2d.maze}",
        "",
        f"Mean and 95 % interval over {config.seeds} seeds; {config.steps:,} steps each; "
        f"{config.evaluation_episodes} episodes of {config.episode_steps} steps from "
        "starts that no training has seen. Bands: least and greatest seed.",
        "",
        report.markdown(header, rows),
        "",
        "![learning curves](figures/learning.png)",
        "",
    ]
    files.write_text(workdir / "report.md", "\n".join(lines))
    say("\n".join(lines[:-2]) + f"\nreport: {workdir / 'report.md'}")
