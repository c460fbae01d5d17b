"""From a config to objects: denoisers, rewards, optimisers.

A network is an entry of a table; another one needs no other line.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from configs.common import ConfigDict, choose
from diffreward.diffusion import (
    Schedule,
    cosine,
    linear,
    linear_betas,
    pinned_observations,
)
from diffreward.learn import Denoiser, RewardModel
from diffreward.networks import (
    DifferenceOfSquares,
    EnergyDenoiser,
    InnerProductReward,
    ResidualEnergy,
    ScalarReward,
    SingleStepRewardMLP,
    TemporalUnet,
    TrajectoryMLP,
    ValueFunction,
    WindowReward,
)
from diffreward.reward import OBJECTIVES, SCORE, Objective
from diffreward.train import make_optimiser


def trunk(config: ConfigDict, out_dim: int | None = None) -> TrajectoryMLP:
    """The perceptron described by a section of the config."""
    return TrajectoryMLP(
        config.width, config.depth, out_dim=out_dim, time_width=config.time_width
    )


SCHEDULES: dict[str, Callable[[int], Schedule]] = {
    "cosine": cosine,
    "linear": linear,
    "linear_betas": linear_betas,
}

NETWORKS: dict[str, Callable[[ConfigDict], Any]] = {
    "mlp": trunk,
    "unet": lambda c: TemporalUnet(dim_mults=tuple(c.dim_mults), attention=c.attention),
}
"""Denoisers of trajectories, by ``model.network``: maps a section to a network."""

REWARDS: dict[str, Callable[[ConfigDict, Objective, int, Denoiser], Any]] = {
    "inner": lambda c, objective, window, model: InnerProductReward(trunk(c)),
    "scalar": lambda c, objective, window, model: ScalarReward(trunk(c)),
    "squares": lambda c, objective, window, model: DifferenceOfSquares(trunk(c, out_dim=8)),
    "value": lambda c, objective, window, model: ValueFunction(
        activation=objective.activation
    ),
    "single_step": lambda c, objective, window, model: SingleStepRewardMLP(
        hidden=(128, 64, 32), window=window, activation=objective.activation
    ),
    "residual": lambda c, objective, window, model: ResidualEnergy(energy_net(model)),
}
"""Rewards of trajectories, by their section's ``network``: maps (section, objective,
steps of a window, base) to a network."""


def energy_net(model: Denoiser) -> Any:
    """F of the base's energy ``<x, f(x, t)>``, or of the one that it is distilled into."""
    network = model.network
    return network.net if isinstance(network, EnergyDenoiser) else network


def build_schedule(name: str, kind: str, num_steps: int) -> Schedule:
    """Noise levels by the name of their schedule; ``name`` is the key's, for messages."""
    return SCHEDULES[choose(name, kind, SCHEDULES)](num_steps)


def denoising_network(config: ConfigDict, name: str) -> Any:
    """The network of a section; ``name`` is the section's, for messages."""
    make = NETWORKS[choose(f"{name}.network", config.network, NETWORKS)]
    return EnergyDenoiser(make(config)) if config.conservative else make(config)


def build_denoiser(
    config: ConfigDict, act_dim: int, obs_dim: int, expert: ConfigDict | None = None
) -> Denoiser:
    """The denoiser of trajectories described by ``config.model``.

    ``expert`` describes the network of experts, where that may be another. Of a policy the
    observations of all steps are conditions.
    """
    horizon, dim = config.horizon, act_dim + obs_dim
    shown = range(horizon) if config.get("policy", False) else config.pinned
    network = denoising_network(config, "model")
    own = network if expert is None else denoising_network(expert, "expert_model")
    first_action = jnp.zeros((horizon, dim), bool).at[0, :act_dim].set(True)
    return Denoiser(
        network=network,
        schedule=build_schedule("model.schedule", config.schedule, config.num_steps),
        pinned=pinned_observations(horizon, act_dim, obs_dim, tuple(shown)),
        weight=jnp.where(first_action, config.action_weight, 1.0),
        mask_padding=config.mask_padding,
        clip=config.clip,
        expert=None if own == network else own,
    )


def build_objective(name: str) -> Objective:
    """What a reward is aligned with, by its section's ``preset``."""
    return OBJECTIVES[choose("preset of the reward", name, OBJECTIVES)]


def check_residual(objective: Objective, whole: bool = True) -> None:
    """Refuses a reward that starts at the base's energy in other units, or on windows."""
    if not whole or objective.scale is not SCORE.scale:
        raise ValueError(
            "network='residual' starts at the base's energy, which is of whole plans and "
            "in nats; use it with window=0 and preset='score'"
        )


def build_reward(config: ConfigDict, model: Denoiser) -> RewardModel:
    """The reward of trajectories described by a section of the config."""
    horizon = model.shape[0]
    window = config.window or horizon
    make = REWARDS[choose("network of the reward", config.network, REWARDS)]
    objective = build_objective(config.preset)
    network: Any = make(config, objective, window, model)
    if config.network == "residual":
        check_residual(objective, window == horizon)
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
        clip_weights=config.clip_weights or None,
        l2=config.l2,
    )
