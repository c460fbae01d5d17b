"""What a policy is paid: the true reward, an extracted one, or what that is compared with.

A form of pay is an entry of ``FORMS``; another one needs no other line.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffreward import data as d
from diffreward import measures
from diffreward.learn import log_density
from diffreward.steer import stepwise, wrappers
from diffreward.types import Params, RewardFn
from experiments.baselines import scalar_fn
from experiments.maze2d import maps
from experiments.maze2d.build import ACT, take
from experiments.rl.build import Job, Study

SCALING_WINDOWS = 4096
"""Of the base's data, on which payments have mean 0 and deviation 1."""
SCALING_SEED = 1
"""Of their choice."""
CREDIT_SEED = 0
"""Of the noises of a clean value, of which there are none."""

Pay = Callable[[wrappers.History, np.ndarray], np.ndarray]
"""Rewards (envs,) of the newest step from the history and the true rewards."""


class Form(NamedTuple):
    """One way to pay."""

    meaning: str
    make: Callable[[Study, Job], Pay]
    whole_windows: bool = False
    """Whether nothing is paid before a window of the maze run is complete."""
    seeded: bool = False
    """Whether it depends on the seed of the policy."""


class Payment(NamedTuple):
    """What the policies of a goal are paid, and how far that is from the truth."""

    pay: Pay
    epic: float | None


def make_payment(study: Study, job: Job) -> Payment:
    """The payment of one policy, and of all that differ from it by their seed alone."""
    raw = FORMS[job.kind].make(study, job)
    return Payment(make_pay(study, job, raw), epic_to_truth(study, job, raw))


def make_pay(study: Study, job: Job, raw: Pay | None = None) -> Pay:
    """The reward a policy is paid, with mean 0 and deviation 1 on the base's data.

    A shift and a positive factor change no optimum where all episodes are as long.
    """
    form = FORMS[job.kind]
    raw = form.make(study, job) if raw is None else raw
    sample, _ = on_data(study, job, raw)
    shift, scale = sample.mean(), max(float(sample.std()), 1e-6)

    def pay(history: wrappers.History, true: np.ndarray) -> np.ndarray:
        paid = (raw(history, true) - shift) / scale
        return np.where(history.complete, paid, 0.0) if form.whole_windows else paid

    return pay


def on_data(study: Study, job: Job, raw: Pay) -> tuple[np.ndarray, np.ndarray]:
    """What is paid on the base's data, and the true reward there."""
    rows = sample_windows(study)
    history = wrappers.History(rows, np.full(len(rows), study.run.window))
    goal = study.run.maze.goals[job.goal - 1]
    true = d.true_reward(rows[:, -1, ACT:], goal)
    return raw(history, true), true


def epic_to_truth(study: Study, job: Job, raw: Pay | None = None) -> float | None:
    """EPIC distance of a form of pay to the true reward, on the base's states.

    Of rewards that read one state alone, the canonically shaped form (Gleave et al., 2021,
    def. 4.1) is the reward of one state up to a factor and a constant, whatever the
    discount: the distance is the Pearson distance of the two over states. None for a form
    that reads more, or is constant.
    """
    form = FORMS[job.kind]
    if form.whole_windows:
        return None
    raw = form.make(study, job) if raw is None else raw
    paid, true = on_data(study, job, raw)
    if not (np.ptp(paid) and np.ptp(true)):
        return None
    return float(np.sqrt(max(1 - np.corrcoef(paid, true)[0, 1], 0) / 2))


def sample_windows(study: Study) -> np.ndarray:
    """Rows ``[action, observation]`` of windows of the base's data, not normalised."""
    normaliser, size = study.prepared.normaliser, study.run.window
    windows = d.make_windows(
        study.prepared.base["train"], normaliser, horizon=size, pad=False
    )
    x = d.draw(windows, jax.random.key(SCALING_SEED), SCALING_WINDOWS, size)["x_0"]
    return d.unnormalise(normaliser, np.asarray(x))


def pay_truth(study: Study, job: Job) -> Pay:
    """Pays being near the goal, which no other form is told."""
    del study, job
    return lambda history, true: true


def pay_states(study: Study, job: Job) -> Pay:
    """Pays the extracted reward of the state: how much more often the expert is there."""
    member = goal_index(study, job) * study.states.run.config.rewards.seeds
    return state_value(study, study.states.run.reward, take(study.states.rewards, member))


def pay_regularised(study: Study, job: Job) -> Pay:
    """Pays that reward and ``states.beta`` times the base's log density, of its energy.

    The return is then E[r] - beta KL(d || d_base) but for the entropy of the visits d:
    places where neither model has been cost what they would cost under that penalty.
    """
    found, beta = study.states, study.config.states.beta
    member = goal_index(study, job) * found.run.config.rewards.seeds
    ratio = found.run.reward.reward_fn(take(found.rewards, member))
    base = log_density(found.run.model, found.base)
    return credit_state(study, lambda x_t, t: ratio(x_t, t) + beta * base(x_t, t))


def pay_random(study: Study, job: Job) -> Pay:
    """Pays the network of the extracted reward of states with the job's own parameters."""
    run = study.states.run
    x, t = jnp.zeros(run.model.shape), jnp.zeros((), jnp.int32)
    params = run.reward.network.init(jax.random.key(job.seed), x, t)
    return state_value(study, run.reward, params)


def pay_discriminator(study: Study, job: Job) -> Pay:
    """Pays the logit of a classifier of the two data sets' states."""
    params = take(study.states.discriminators, goal_index(study, job))
    network = study.states.discriminator
    return credit_state(study, scalar_fn(network, params))


def state_value(study: Study, reward: Any, params: Params) -> Pay:
    """Pays a reward network of states."""
    return credit_state(study, reward.reward_fn(params))


def credit_state(study: Study, reward_fn: RewardFn) -> Pay:
    """Pays every step the value of the state it begins in, without noise."""
    run, levels = study.states.run, jnp.asarray(study.config.states.levels, jnp.int32)
    value_fn = stepwise.clean_reward(
        reward_fn,
        run.model.schedule,
        jax.random.key(CREDIT_SEED),
        levels,
        num_noises=0,
    )
    normaliser = study.states.prepared.normaliser
    values = jax.jit(jax.vmap(lambda rows: value_fn(d.normalise(normaliser, rows))))
    horizon = run.model.shape[0]
    return lambda history, true: np.asarray(values(history.rows[:, -horizon:, ACT:]))


def pay_counting(study: Study, job: Job) -> Pay:
    """Pays the log ratio of the two data sets' visits to the place: no model at all."""
    run, e = study.run, study.run.config.evaluation
    grid = maps.make_maze_grid(run)
    index = goal_index(study, job)
    sets = (study.prepared.experts[index]["train"], study.prepared.base["train"])
    ratio = measures.log_visit_ratio(
        *(measures.visits(grid, x.observations[:, :2]) for x in sets),
        min_count=e.map_min_count,
        sigma=e.map_smoothing,
    )
    return lambda history, true: measures.look_up(grid, ratio, place(history))


def pay_map(study: Study, job: Job) -> Pay:
    """Pays what the reward map says of the place.

    The windows are the base's, as in the Maze2D report but from training episodes.
    """
    value = map_value(study, job)
    return lambda history, true: value(history)


def pay_ranks(study: Study, job: Job) -> Pay:
    """Pays how few of the base's places the map holds for as good: a shaping of it.

    Maps are nearly flat around their peak, ranks are not.
    """
    value, rows = map_value(study, job), sample_windows(study)
    seen = value(wrappers.History(rows, np.full(len(rows), study.run.window)))
    return lambda history, true: measures.surprise(value(history), seen)


def map_value(study: Study, job: Job) -> Callable[[wrappers.History], np.ndarray]:
    """The reward map of the job's goal, read at the newest place."""
    values, params = maps.make_window_values(study.run), window_params(study, job)
    grid, shown = maps.reward_map(
        study.run,
        study.prepared.normaliser,
        lambda x: values(params, x),
        maps.first_episodes(study.run, study.prepared.base["train"]),
    )
    return lambda history: measures.look_up(grid, shown, place(history))


def pay_windows(study: Study, job: Job) -> Pay:
    """Pays every step the value of the window it completes, over the window's length.

    A ratio of windows pays every move that the expert makes more often than the base, and
    can be earned again and again on the way.
    """
    run, levels = study.run, study.config.window_levels
    every = run.model.schedule.num_steps // levels
    value_fn = stepwise.clean_reward(
        run.window_reward.window_fn(window_params(study, job)),
        run.model.schedule,
        jax.random.key(CREDIT_SEED),
        jnp.arange(levels, dtype=jnp.int32) * every,
        num_noises=0,
    )
    payment = wrappers.make_payment(value_fn, study.prepared.normaliser, run.window)
    return lambda history, true: payment(history)


def window_params(study: Study, job: Job) -> Params:
    """The extracted reward of windows of the job's goal."""
    member = goal_index(study, job) * study.run.config.window_rewards.seeds
    return take(study.window_rewards, member)


def goal_index(study: Study, job: Job) -> int:
    """Where the job's goal stands among those that have an expert."""
    return list(study.run.config.goals).index(job.goal)


def place(history: wrappers.History) -> np.ndarray:
    """The newest positions, (envs, 2)."""
    return history.rows[:, -1, ACT : ACT + 2]


FORMS: dict[str, Form] = {
    "true": Form("being near the goal", pay_truth),
    "states": Form("the extracted reward of the state", pay_states),
    "regularised": Form("that, less a penalty of leaving the base", pay_regularised),
    "counting": Form("log ratio of the data's visits to the place", pay_counting),
    "discriminator": Form("logit of a classifier of the data's states", pay_discriminator),
    "map": Form("the extracted map's value of the place", pay_map),
    "ranks": Form("the rank of the place on that map (shaping)", pay_ranks),
    "windows": Form("the extracted reward of the last steps", pay_windows, True),
    "random": Form(
        "a reward of states that nothing was extracted into", pay_random, seeded=True
    ),
}
"""Forms of pay by ``rewards``, and what each pays for."""
