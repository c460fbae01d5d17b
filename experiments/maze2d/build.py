"""The records of a maze run: its config as objects, its data, what it has trained."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from configs.common import ConfigDict
from diffreward import data as d
from diffreward.learn import Denoiser, RewardModel
from diffreward.types import Params
from experiments.build import build_denoiser, build_reward

ACT, OBS = 2, 4
"""Numbers per action and per observation (position, velocity)."""
GOAL = 2
"""Numbers that end an observation of conditioned models: where the goal is."""
REWARDS = ("rewards", "window_rewards")
"""Sections, and stages, that train rewards."""


class Run(NamedTuple):
    """A config and the objects it describes; all that is known before there are data."""

    config: ConfigDict
    workdir: Path
    maze: d.Maze
    model: Denoiser
    """Of the base and the experts."""
    reward: RewardModel
    """Of whole plans: ranks and steers."""
    window_reward: RewardModel
    """Of short windows: drawn as maps."""
    data_folder: Path | None = None
    """Of its data, where they are another run's."""

    def folder(self, stage: str) -> Path:
        """Where a stage of this run is written."""
        own = self.workdir / stage
        return (self.data_folder or own) if stage == "data" else own

    @property
    def obs(self) -> int:
        """Numbers per observation of the models."""
        return OBS + GOAL * self.config.conditioned

    @property
    def experts(self) -> int:
        """How many there are: one per goal, or one that is told the goal."""
        return 1 if self.config.conditioned else len(self.config.goals)

    @property
    def window(self) -> int:
        """Steps of the windows that have a reward of their own."""
        return self.config.window_rewards.window or self.config.model.horizon


class Prepared(NamedTuple):
    """The data of one run: episodes by split, and the coordinates of every model."""

    normaliser: d.Normaliser
    """Of ``[action, observation]``."""
    base: dict[str, d.Episodes]
    experts: list[dict[str, d.Episodes]]
    """One per goal."""


class Models(NamedTuple):
    """Parameters of one goal's models."""

    base: Params
    expert: Params
    reward: Params
    window_reward: Params


class Trained(NamedTuple):
    """Parameters of all goals' models."""

    base: Params
    experts: Params
    """Stacked: member = goal, or the one expert of all goals."""
    rewards: Params
    """Stacked: member = expert * seeds + seed."""
    window_rewards: Params
    """Stacked the same way."""

    def of_goal(self, config: ConfigDict, index: int, seed: int) -> Models:
        """The models of one goal: one seed of the reward, the first of windows."""
        index = 0 if config.conditioned else index
        return Models(
            self.base,
            take(self.experts, index),
            take(self.rewards, index * config.rewards.seeds + seed),
            take(self.window_rewards, index * config.window_rewards.seeds),
        )


def take(stacked: Params, member: int) -> Params:
    """One member of stacked parameters."""
    return jax.tree.map(lambda x: x[member], stacked)


def goal_entries(steps: int) -> Array:
    """Marks where conditioned models are told the goal, (steps, dim)."""
    dim = ACT + OBS + GOAL
    return jnp.zeros((steps, dim), bool).at[:, -GOAL:].set(True)


def build(config: ConfigDict, workdir: Path) -> Run:
    """Turns a checked config into objects, once.

    Raises:
        ValueError: for a part (maze, schedule, network, preset) of an unknown name.
    """
    model = build_denoiser(config.model, ACT, OBS + GOAL * config.conditioned)
    if config.conditioned:
        model = model._replace(pinned=model.pinned | goal_entries(config.model.horizon))
    reward, window_reward = (build_reward(config[name], model) for name in REWARDS)
    return Run(config, workdir, d.make_maze(config.maze), model, reward, window_reward)
