"""The maze pair of the leaderboard: windows resampled by a known reward, two denoisers."""

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from configs.common import ConfigDict
from diffreward import data as d
from diffreward import extract, report, train
from diffreward.data import pairs
from diffreward.diffusion import Schedule, denoising_loss, to_eps
from diffreward.networks import TrajectoryMLP
from diffreward.reward import Pair
from experiments import tasks

RECIPE = d.Recipe(frame_skip=6, action_noise=0.3, hold=8, max_steps=300)
GOAL = 0
"""Index of the U-maze's goal that the reward is about."""
HELD_OUT = 128


def prepare(
    config: ConfigDict, folder: Path, schedule: Schedule
) -> tuple[extract.Source, Array, np.ndarray]:
    """Models, samples and labels; held-out windows of the base, and their rewards.

    The reward of a window of positions is minus its mean distance from a goal, in
    metres. The expert's data are the base's windows in proportion to exp(reward / beta).
    """
    m = config.maze
    settings = {"maze": m.to_dict(), "num_steps": config.num_steps, "seed": config.seed}
    settings |= {"samples": config.samples}
    done = report.open_stage(folder, settings)
    began = time.time()
    d.generate(
        folder / "data",
        "umaze",
        (None,),
        transitions=m.transitions,
        seed=config.seed,
        recipe=RECIPE,
        processes=1,
        progress=False,
    )
    windows, rewards = labelled(d.load(folder / "data", "umaze", None), m.horizon)
    seen = len(windows) * 3 // 4  # whole episodes but one come first
    picks = pairs.tilt_rows(rewards[:seen], m.beta, config.samples, config.seed)
    rng = np.random.default_rng(config.seed)
    plain = rng.choice(seen, config.samples)
    base, expert = windows[:seen][plain], windows[:seen][picks.rows]
    normaliser = d.fit_limits(windows[:seen])
    base, expert, later = (
        jnp.asarray(d.normalise(normaliser, x)) for x in (base, expert, windows[seen:])
    )
    pair = denoisers(config, folder, schedule, jnp.stack([base, expert]))
    returns = np.concatenate([rewards[:seen][plain], rewards[:seen][picks.rows]]) / m.beta
    # Bradley & Terry: the better of two with the odds exp of their difference.
    i, j = rng.permutation(2 * config.samples).reshape(2, -1)
    first = rng.uniform(size=len(i)) < 1 / (1 + np.exp(returns[j] - returns[i]))
    x_0 = jnp.concatenate([base, expert])
    preferences = extract.Preferences(
        x_0[np.where(first, i, j)], x_0[np.where(first, j, i)]
    )
    source = extract.Source(pair, base, expert, returns.astype(np.float32), preferences)
    test = rng.choice(len(later), min(HELD_OUT, len(later)), replace=False)
    if not done:
        cost = {"seconds": time.time() - began, "effective_rows": picks.effective}
        report.close_stage(folder, cost)
    return source, later[test], rewards[seen:][test]


def labelled(episodes: d.Episodes, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows of positions, and the reward of each."""
    windows = pairs.episode_windows(episodes, horizon, slice(0, 2))
    goal = d.make_maze("umaze").goals[GOAL]
    return windows, -np.linalg.norm(windows - goal, axis=-1).mean(1)


def denoisers(config: ConfigDict, folder: Path, schedule: Schedule, x_0: Array) -> Pair:
    """A denoiser of each data set, base first, trained side by side."""
    m, batch_size = config.maze, config.training.batch_size
    network = TrajectoryMLP(m.width, config.training.depth)

    def loss(params: Any, frozen: Any, key: Array, batch: Array) -> tuple:
        del frozen
        t, eps = tasks.draw_noise(key, batch, schedule)
        predict = lambda x_t, t: tasks.apply(network, params, x_t, t)
        one = lambda x, t, e: denoising_loss(predict, schedule, x, t, e)[0]
        return jax.vmap(one)(batch, t, eps).mean(), {}

    state = train.fit(
        train.Task(
            init=lambda key: network.init(key, x_0[0, 0], jnp.int32(0)),
            loss=loss,
            draw=lambda x, key: x[jax.random.randint(key, (batch_size,), 0, len(x))],
        ),
        train.make_optimiser(1e-3, steps=m.steps, schedule="cosine", clip_norm=1.0),
        data=x_0,
        data_axes=0,
        population=2,
        steps=m.steps,
        seed=config.seed,
        workdir=folder,
        name="models",
        steps_per_dispatch=min(m.steps, 500),
        checkpoint_every=m.steps,
        progress=False,
    )
    params = jax.device_get(state.ema_params)

    def model(member: int) -> Any:
        own = jax.tree.map(lambda p: p[member], params)

        def eps_fn(x_t: Array, t: Array) -> Array:
            return to_eps(schedule, "x_0", x_t, t, tasks.apply(network, own, x_t, t))

        return eps_fn

    return Pair(model(0), model(1), schedule)
