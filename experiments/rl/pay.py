"""What a policy is paid: the true reward, the map of an extracted one, or its windows."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffreward import data as d
from diffreward import measures
from diffreward.steer import stepwise, wrappers
from diffreward.types import Params
from experiments.maze2d import maps
from experiments.maze2d.build import ACT, take
from experiments.rl.build import Job, Study

SCALING_WINDOWS = 4096
"""Of the base's data, on which payments have mean 0 and deviation 1."""
SCALING_SEED = 1
"""Of their choice."""
CREDIT_SEED = 0
"""Of the noises of a window's value, which is of a clean window here and has none."""

Pay = Callable[[wrappers.History, np.ndarray], np.ndarray]
"""Rewards (envs,) of the newest step from the history and the true rewards."""


def make_pay(study: Study, job: Job) -> Pay:
    """The reward a policy is paid, with mean 0 and deviation 1 on the base's data.

    The random one is the extracted one's network with fresh parameters, credited to
    steps in the same way.
    """
    whole_windows = job.kind != "true" and study.config.credit == "window"
    if job.kind == "true":
        raw: Pay = lambda history, true: true
    else:
        credit = credit_windows if whole_windows else credit_states
        raw = credit(study, reward_params(study, job))
    rows = sample_windows(study)
    history = wrappers.History(rows, np.full(len(rows), study.run.window))
    goal = study.run.maze.goals[job.goal - 1]
    sample = raw(history, d.true_reward(rows[:, -1, ACT:], goal))
    shift, scale = sample.mean(), max(float(sample.std()), 1e-6)

    def pay(history: wrappers.History, true: np.ndarray) -> np.ndarray:
        paid = (raw(history, true) - shift) / scale
        return np.where(history.complete, paid, 0.0) if whole_windows else paid

    return pay


def reward_params(study: Study, job: Job) -> Params:
    """The extracted reward of the job's goal, or a random one of the job's seed."""
    run = study.run
    if job.kind == "random":
        key, x = jax.random.key(job.seed), jnp.zeros(run.model.shape)
        return run.window_reward.network.init(key, x, jnp.zeros((), jnp.int32))
    goal = list(run.config.goals).index(job.goal)
    return take(study.window_rewards, goal * run.config.window_rewards.seeds)


def sample_windows(study: Study) -> np.ndarray:
    """Rows ``[action, observation]`` of windows of the base's data, not normalised."""
    normaliser, size = study.prepared.normaliser, study.run.window
    windows = d.make_windows(
        study.prepared.base["train"], normaliser, horizon=size, pad=False
    )
    x = d.draw(windows, jax.random.key(SCALING_SEED), SCALING_WINDOWS, size)["x_0"]
    return d.unnormalise(normaliser, np.asarray(x))


def credit_states(study: Study, params: Params) -> Pay:
    """Pays what the reward map says of the place.

    The windows are the base's, as in the Maze2D report but from training episodes. A
    ratio of windows pays every move that the expert makes more often than the base, and
    can be earned again and again on the way; the map ranks places. With ``ranked`` a place
    is paid how few of the base's places are as good, not how good: maps are nearly flat
    around their peak, ranks are not.
    """
    values = maps.make_window_values(study.run)
    grid, shown = maps.reward_map(
        study.run,
        study.prepared.normaliser,
        lambda x: values(params, x),
        maps.first_episodes(study.run, study.prepared.base["train"]),
    )

    def value(rows: np.ndarray) -> np.ndarray:
        return measures.look_up(grid, shown, rows[:, -1, ACT : ACT + 2])

    if not study.config.ranked:
        return lambda history, true: value(history.rows)
    seen = value(sample_windows(study))
    return lambda history, true: measures.surprise(value(history.rows), seen)


def credit_windows(study: Study, params: Params) -> Pay:
    """Pays every step the value of the window it completes, over the window's length."""
    run, levels = study.run, study.config.levels
    every = run.model.schedule.num_steps // levels
    value_fn = stepwise.clean_reward(
        run.window_reward.window_fn(params),
        run.model.schedule,
        jax.random.key(CREDIT_SEED),
        jnp.arange(levels, dtype=jnp.int32) * every,
        num_noises=0,
    )
    payment = wrappers.make_payment(value_fn, study.prepared.normaliser, run.window)
    return lambda history, true: payment(history)
