"""Reward networks of the zoo: nets shown samples of any shape, in nats."""

from typing import Any

import jax
import jax.numpy as jnp

from diffreward.diffusion import Schedule
from diffreward.extract.settings import Training
from diffreward.networks import (
    AsTrajectory,
    InnerProductReward,
    LevelScaled,
    ScalarReward,
    TrajectoryMLP,
)
from diffreward.reward import score_scale


def inner_product(settings: Training) -> Any:
    """The network of gradients: given, or ``<x, f(x, t)>`` with a perceptron f."""
    return settings.network or AsTrajectory(InnerProductReward(trunk(settings)))


def scalar(settings: Training, schedule: Schedule, scale: float = 1.0) -> Any:
    """The network of values: given, or a perceptron with a linear read-out.

    It is multiplied with sqrt(alpha_bar), the share of x_0 left in x_t: what noise
    destroys no reward can know.
    """
    net = settings.network or AsTrajectory(ScalarReward(trunk(settings)))
    return LevelScaled(net, tuple((scale * schedule.sqrt_alpha_bar).tolist()))


def trunk(settings: Training) -> TrajectoryMLP:
    """The perceptron of the settings."""
    return TrajectoryMLP(settings.width, settings.depth)


def score_scales(schedule: Schedule) -> tuple[float, ...]:
    """`score_scale` of every level."""
    levels = jnp.arange(schedule.num_steps)
    scales = jax.vmap(lambda t: score_scale(schedule, t))(levels)
    return tuple(scales.tolist())
