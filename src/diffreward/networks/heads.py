"""Reward networks as whole rewards: any sample shape, nats, differences of energies."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from diffreward.types import Scalar, Time


class LevelScaled(nn.Module):
    """A scalar network times one number per noise level.

    So a stored module and its parameters are the whole reward, in nats.
    """

    net: nn.Module
    scales: tuple[float, ...]

    @nn.compact
    def __call__(self, x: Array, t: Time) -> Scalar:
        """Reward of one noised sample."""
        chosen = jnp.arange(len(self.scales)) == t
        scale = jnp.where(chosen, jnp.asarray(self.scales, x.dtype), 0).sum()
        return scale * self.net(x, t)


def as_trajectory(x: Array) -> Array:
    """``(horizon, dim)`` as it is; a vector as one step; more axes flattened to one."""
    return x if x.ndim == 2 else x.reshape(1, -1)


class AsTrajectory(nn.Module):
    """Shows a sample of any shape to a network of trajectories."""

    net: nn.Module

    @nn.compact
    def __call__(self, x: Array, t: Time) -> Scalar:
        """Reward of one noised sample."""
        return self.net(as_trajectory(x), t)


class Flattened(nn.Module):
    """Runs a network of trajectories on a sample of any shape; the output has its shape."""

    net: nn.Module

    @nn.compact
    def __call__(self, x: Array, t: Time) -> Array:
        """Maps (x_t, t) to a sample of the same shape."""
        return self.net(as_trajectory(x), t).reshape(x.shape)


class EnergyDifference(nn.Module):
    """Energy ``<x, f(x, t)>`` of the expert minus that of the base.

    The parameters of f are stacked: base first.
    """

    net: nn.Module

    @nn.compact
    def __call__(self, x: Array, t: Time) -> Scalar:
        """E_expert(x_t, t) - E_base(x_t, t)."""
        x = as_trajectory(x)
        energies = nn.vmap(
            lambda net: jnp.sum(x * net(x, t)),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            axis_size=2,
        )
        base, expert = energies(self.net)
        return expert - base
