"""The maze pair of the leaderboard: windows resampled by a known reward, two denoisers."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from configs.common import ConfigDict
from diffreward import data as d
from diffreward import extract, report, train
from diffreward.data import pairs
from diffreward.diffusion import Schedule
from diffreward.learn import Denoiser, batch_loss, draw_noise, init, rows
from diffreward.networks import TrajectoryMLP
from diffreward.reward import Pair

RECIPE = d.Recipe(frame_skip=6, action_noise=0.3, hold=8, max_steps=300)
GOAL = 0
"""Index of the U-maze's goal that the reward is about."""
FRACTIONS = (0.7, 0.05, 0.25)


class Windows(NamedTuple):
    """Windows of positions in metres, with their known rewards."""

    x: np.ndarray
    rewards: np.ndarray
    episode: np.ndarray
    """Which episode each was cut from."""


class HeldOut(NamedTuple):
    """What rewards are judged on: whole episodes of the base that nothing was fitted to."""

    x: Array
    rewards: np.ndarray
    episode: np.ndarray


def prepare(
    config: ConfigDict, folder: Path, schedule: Schedule, seed: int
) -> tuple[extract.Source, HeldOut]:
    """Models, samples and labels of one seed; held-out windows of the base.

    The reward of a window of positions is minus its mean distance from a goal, in
    metres. The expert's data are the base's windows in proportion to exp(reward / beta).
    """
    m = config.maze
    settings = {"maze": m.to_dict(), "num_steps": config.num_steps, "seed": seed}
    settings |= {"samples": config.samples}
    done = report.open_stage(folder, settings)
    began = time.time()
    d.generate(
        folder / "data",
        "umaze",
        (None,),
        transitions=m.transitions,
        seed=seed,
        recipe=RECIPE,
        processes=1,
        progress=False,
    )
    episodes = d.load(folder / "data", "umaze", None)
    split = d.split_episodes(len(episodes.lengths), seed, FRACTIONS)
    seen = labelled(d.select(episodes, split["train"]), m.horizon)
    later = labelled(d.select(episodes, split["test"]), m.horizon, m.horizon)
    picks = pairs.tilt_rows(seen.rewards, m.beta, config.samples, seed)
    rng = np.random.default_rng(seed)
    plain = rng.choice(len(seen.x), config.samples)
    normaliser = d.fit_limits(seen.x)
    base, expert, test = (
        jnp.asarray(d.normalise(normaliser, x))
        for x in (seen.x[plain], seen.x[picks.rows], later.x)
    )
    pair = denoisers(config, folder, schedule, jnp.stack([base, expert]), seed)
    returns = np.concatenate([seen.rewards[plain], seen.rewards[picks.rows]]) / m.beta
    # Bradley & Terry: the better of two with the odds exp of their difference.
    i, j = rng.permutation(2 * config.samples).reshape(2, -1)
    first = rng.uniform(size=len(i)) < 1 / (1 + np.exp(returns[j] - returns[i]))
    x_0 = jnp.concatenate([base, expert])
    preferences = extract.Preferences(
        x_0[np.where(first, i, j)], x_0[np.where(first, j, i)]
    )
    source = extract.Source(pair, base, expert, returns.astype(np.float32), preferences)
    if not done:
        cost = {"seconds": time.time() - began, "effective_rows": picks.effective}
        report.close_stage(folder, cost)
    return source, whole_episodes(HeldOut(test, later.rewards, later.episode), m.held_out)


def labelled(episodes: d.Episodes, horizon: int, spacing: int = 1) -> Windows:
    """Windows of positions, ``spacing`` rows apart within an episode."""
    x = pairs.episode_windows(episodes, horizon, slice(0, 2), spacing)
    counts = np.maximum((episodes.lengths - horizon) // spacing + 1, 0)
    goal = d.make_maze("umaze").goals[GOAL]
    rewards = -np.linalg.norm(x - goal, axis=-1).mean(1)
    return Windows(x, rewards, np.repeat(np.arange(len(counts)), counts))


def whole_episodes(windows: HeldOut, least: int) -> HeldOut:
    """The first whole episodes with ``least`` windows together.

    Raises:
        ValueError: if there are not so many.
    """
    found = len(windows.episode)
    if found < least:
        raise ValueError(
            f"maze.held_out={least} windows, but the held-out episodes have {found}; "
            "raise maze.transitions"
        )
    rows = windows.episode <= windows.episode[least - 1]
    return HeldOut(windows.x[rows], windows.rewards[rows], windows.episode[rows])


def log_visit_ratio(source: extract.Source, x: Array, cells: int) -> np.ndarray:
    """The simplest reward: how much oftener the expert is where a window is.

    Mean over the window's positions of the log ratio of visits, each cell of a grid of
    ``cells`` by ``cells`` counted once more than it was visited.
    """
    edges = np.linspace(-1, 1, cells + 1)[1:-1]

    def places(x: Any) -> np.ndarray:
        column, row = np.moveaxis(np.digitize(np.asarray(x), edges), -1, 0)
        return column * cells + row

    def visits(x: Any) -> np.ndarray:
        return 1 + np.bincount(places(x).ravel(), minlength=cells**2)

    ratio = np.log(visits(source.expert) / visits(source.base))
    return ratio[places(x)].mean(1)


def denoisers(
    config: ConfigDict, folder: Path, schedule: Schedule, x_0: Array, seed: int
) -> Pair:
    """A denoiser of each data set, base first, trained side by side."""
    m, batch_size = config.maze, config.training.batch_size
    network = TrajectoryMLP(m.width, config.training.depth)

    def loss(params: Any, frozen: Any, key: Array, batch: Array) -> tuple:
        del frozen
        t, eps = draw_noise(schedule, key, batch)
        return batch_loss(network, params, schedule, batch, t, eps)

    state = train.optimise(
        train.Task(
            init=lambda key: init(network, x_0.shape[2:], key),
            loss=loss,
            draw=lambda x, key: rows(x, key, batch_size),
        ),
        train.make_optimiser(1e-3, steps=m.steps, schedule="cosine", clip_norm=1.0),
        data=x_0,
        steps=m.steps,
        seed=seed,
        workdir=folder,
        name="models",
        members=train.Members(2, data_axes=0),
        loop=train.Loop(
            steps_per_dispatch=min(m.steps, 500), checkpoint_every=m.steps, progress=False
        ),
    )
    params = jax.device_get(state.ema_params)
    whole = Denoiser(network, schedule, pinned=jnp.zeros(x_0.shape[2:], bool))
    return whole.pair(*(jax.tree.map(lambda p, i=i: p[i], params) for i in range(2)))
