"""Reward networks of the zoo: nets shown samples of any shape, in nats."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffreward.diffusion import Schedule
from diffreward.extract.source import FitSettings
from diffreward.networks import InnerProductReward, ScalarReward, TrajectoryMLP
from diffreward.reward import value_scale
from diffreward.types import Mask, Scalar, Step, Traj


class LevelScaled(nn.Module):
    """A scalar network times one number per noise level.

    So a stored module and its parameters are the whole reward, in nats.
    """

    net: nn.Module
    scales: tuple[float, ...]

    @nn.compact
    def __call__(self, x: Array, t: Step) -> Scalar:
        """Reward of one noised sample."""
        return jnp.asarray(self.scales, x.dtype)[t] * self.net(x, t)


def as_trajectory(x: Array) -> Traj | Mask:
    """``(horizon, dim)`` as it is; a vector as one step; more axes flattened to one."""
    return x if x.ndim == 2 else x.reshape(1, -1)


class AsTrajectory(nn.Module):
    """Shows a sample of any shape to a network of trajectories."""

    net: nn.Module

    @nn.compact
    def __call__(self, x: Array, t: Step) -> Scalar:
        """Reward of one noised sample."""
        return self.net(as_trajectory(x), t)


def inner_product(settings: FitSettings) -> Any:
    """The network of gradients: given, or ``<x, f(x, t)>`` with a perceptron f."""
    return settings.network or AsTrajectory(InnerProductReward(trunk(settings)))


def scalar(settings: FitSettings, schedule: Schedule, scale: float = 1.0) -> Any:
    """The network of values: given, or a perceptron with a linear read-out.

    It is multiplied with sqrt(alpha_bar), the share of x_0 left in x_t: what noise
    destroys no reward can know.
    """
    net = settings.network or AsTrajectory(ScalarReward(trunk(settings)))
    return LevelScaled(net, tuple((scale * schedule.sqrt_alpha_bar).tolist()))


def trunk(settings: FitSettings) -> TrajectoryMLP:
    """The perceptron of the settings."""
    return TrajectoryMLP(settings.width, settings.depth)


def score_scales(schedule: Schedule) -> tuple[float, ...]:
    """`value_scale` of every level."""
    levels = jnp.arange(schedule.num_steps)
    scales = jax.vmap(lambda t: value_scale(schedule, "score", t))(levels)
    return tuple(scales.tolist())
