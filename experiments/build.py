"""From a config to objects: denoisers, rewards, optimisers.

A network is an entry of a table; another one needs no other line.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from configs.common import ConfigDict, choose
from diffreward.diffusion import Schedule, cosine, linear, pinned_observations
from diffreward.learn import Denoiser, RewardModel
from diffreward.networks import (
    DifferenceOfSquares,
    EnergyDenoiser,
    InnerProductReward,
    ScalarReward,
    SingleStepRewardMLP,
    TemporalUnet,
    TrajectoryMLP,
    ValueFunction,
    WindowReward,
)
from diffreward.reward import OBJECTIVES, Objective
from diffreward.train import make_optimiser


def trunk(config: ConfigDict, out_dim: int | None = None) -> TrajectoryMLP:
    """The perceptron described by a section of the config."""
    return TrajectoryMLP(
        config.width, config.depth, out_dim=out_dim, time_width=config.time_width
    )


SCHEDULES: dict[str, Callable[[int], Schedule]] = {"cosine": cosine, "linear": linear}

NETWORKS: dict[str, Callable[[ConfigDict], Any]] = {
    "mlp": trunk,
    "unet": lambda c: TemporalUnet(dim_mults=tuple(c.dim_mults), attention=c.attention),
}
"""Denoisers of trajectories, by ``model.network``: maps a section to a network."""

REWARDS: dict[str, Callable[[ConfigDict, Objective, int], Any]] = {
    "inner": lambda c, objective, window: InnerProductReward(trunk(c)),
    "scalar": lambda c, objective, window: ScalarReward(trunk(c)),
    "squares": lambda c, objective, window: DifferenceOfSquares(trunk(c, out_dim=8)),
    "value": lambda c, objective, window: ValueFunction(activation=objective.activation),
    "single_step": lambda c, objective, window: SingleStepRewardMLP(
        hidden=(128, 64, 32), window=window, activation=objective.activation
    ),
}
"""Rewards of trajectories, by their section's ``network``: maps (section, objective,
steps of a window) to a network."""


def build_schedule(name: str, kind: str, num_steps: int) -> Schedule:
    """Noise levels by the name of their schedule; ``name`` is the key's, for messages."""
    return SCHEDULES[choose(name, kind, SCHEDULES)](num_steps)


def build_denoiser(config: ConfigDict, act_dim: int, obs_dim: int) -> Denoiser:
    """The denoiser of trajectories described by ``config.model``."""
    horizon, dim = config.horizon, act_dim + obs_dim
    network = NETWORKS[choose("model.network", config.network, NETWORKS)](config)
    if config.conservative:
        network = EnergyDenoiser(network)
    first_action = jnp.zeros((horizon, dim), bool).at[0, :act_dim].set(True)
    return Denoiser(
        network=network,
        schedule=build_schedule("model.schedule", config.schedule, config.num_steps),
        pinned=pinned_observations(horizon, act_dim, obs_dim, tuple(config.pinned)),
        weight=jnp.where(first_action, config.action_weight, 1.0),
        mask_padding=config.mask_padding,
        clip=config.clip,
    )


def build_objective(name: str) -> Objective:
    """What a reward is aligned with, by its section's ``preset``."""
    return OBJECTIVES[choose("preset of the reward", name, OBJECTIVES)]


def build_reward(config: ConfigDict, model: Denoiser) -> RewardModel:
    """The reward of trajectories described by a section of the config."""
    horizon = model.shape[0]
    window = config.window or horizon
    make = REWARDS[choose("network of the reward", config.network, REWARDS)]
    objective = build_objective(config.preset)
    network = make(config, objective, window)
    if window < horizon:
        network = WindowReward(network, window, strided=config.strided)
    return RewardModel(network, model.schedule, objective, horizon // window)


def build_scalar(config: ConfigDict) -> Any:
    """The network of the baselines."""
    return ScalarReward(trunk(config))


def optimiser(config: ConfigDict) -> Any:
    """Optax chain of one training section."""
    return make_optimiser(
        config.learning_rate,
        steps=config.steps,
        warmup=config.warmup,
        schedule=config.schedule,
        clip_norm=config.clip_norm or None,
        clip_value=config.clip_value or None,
    )
