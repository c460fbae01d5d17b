"""Smooth multilayer perceptrons, and the ways to make a scalar reward of a network.

A reward is learned through its input gradient, which is conservative by construction.
The heads below differ in how that gradient is parametrised: a scalar read off features,
an inner product of the state with a vector field, or a difference of two energies.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffreward.networks.layers import (
    Activation,
    activation_fn,
    sinusoidal_embedding,
)
from diffreward.types import Sample, Scalar, Time, Traj

TIME_FEATURES = 32


class TrajectoryMLP(nn.Module):
    """Residual MLP on the flattened trajectory; the output is again a trajectory.

    Every block is normalised, then scaled and shifted by the noise level (FiLM).
    """

    width: int = 256
    depth: int = 3
    """Number of residual blocks."""
    out_dim: int | None = None
    """Numbers per step of the output; those of the input by default."""
    activation: Activation = "silu"
    time_width: int = 0
    """Hidden width of the time path; 0 for ``width``. Per sample the path costs
    ``(2 depth + 1) * time_width * width`` products, as much as the blocks at full width.
    """

    @nn.compact
    def __call__(self, x: Traj, t: Time) -> Float[Array, "horizon out"]:
        """Maps (x_t, t) to a trajectory of ``out_dim`` numbers per step."""
        horizon, dim = x.shape
        act = activation_fn(self.activation)
        emb = sinusoidal_embedding(t, TIME_FEATURES).astype(x.dtype)
        emb = act(nn.Dense(self.time_width or self.width, name="time")(emb))
        # One product makes the modulation of every block and the scale of the last norm.
        film = nn.Dense((2 * self.depth + 1) * self.width, name="film")(emb)
        scale_out, *rest = film.reshape(2 * self.depth + 1, self.width)

        h = nn.Dense(self.width, name="stem")(x.reshape(-1))
        for i in range(self.depth):
            scale, shift = rest[2 * i : 2 * i + 2]
            u = nn.LayerNorm(name=f"norm_{i}")(h) * (1 + scale) + shift
            u = act(nn.Dense(self.width, name=f"in_{i}")(u))
            h = h + nn.Dense(self.width, name=f"out_{i}")(u)
        h = nn.LayerNorm(name="norm")(h) * (1 + scale_out)
        out_dim = self.out_dim or dim
        return nn.Dense(horizon * out_dim, name="head")(h).reshape(horizon, out_dim)


class ScalarReward(nn.Module):
    """A linear read-out of a network's activated output."""

    net: nn.Module
    activation: Activation = "mish"

    @nn.compact
    def __call__(self, x: Sample, t: Time) -> Scalar:
        """Reward of one noised trajectory."""
        features = activation_fn(self.activation)(self.net(x, t)).reshape(-1)
        return nn.Dense(1, name="head")(features)[0]


class InnerProductReward(nn.Module):
    """``<x, f(x, t)>`` for a network f that maps trajectories to trajectories."""

    net: nn.Module

    @nn.compact
    def __call__(self, x: Sample, t: Time) -> Scalar:
        """Reward of one noised trajectory."""
        return jnp.sum(x * self.net(x, t))


class DifferenceOfSquares(nn.Module):
    """``||f||^2 - ||g||^2``, f and g being the two halves of the network's output.

    The halves are taken along the last axis, so ``out_dim`` must be even.
    """

    net: nn.Module

    @nn.compact
    def __call__(self, x: Sample, t: Time) -> Scalar:
        """Reward of one noised trajectory.

        Raises:
            ValueError: if the network's output cannot be halved.
        """
        out = self.net(x, t)
        if out.shape[-1] % 2:
            raise ValueError(
                f"DifferenceOfSquares needs an even out_dim, got {out.shape[-1]}; "
                "set out_dim of its network"
            )
        f, g = jnp.split(out, 2, axis=-1)
        return jnp.sum(jnp.square(f)) - jnp.sum(jnp.square(g))


class WindowReward(nn.Module):
    """Mean of one small network over the H / window windows of a trajectory.

    ``strided`` windows are x[j::H/window], as in the published code; by default they are
    contiguous. A trajectory of one window alone gives that window's reward.
    """

    net: nn.Module
    """Maps one window ``(window, dim)`` and t to a scalar."""
    window: int
    strided: bool = False

    @nn.compact
    def __call__(self, x: Traj, t: Time) -> Scalar:
        """Reward of one noised trajectory.

        Raises:
            ValueError: if the horizon is not a multiple of the window.
        """
        windows = split_windows(x, self.window, strided=self.strided)
        per_window = nn.vmap(
            lambda net, w: net(w, t),
            variable_axes={"params": None},
            split_rngs={"params": False},
        )
        return per_window(self.net, windows).mean()


def split_windows(
    x: Traj, window: int, *, strided: bool = False
) -> Float[Array, "windows window dim"]:
    """Cuts a trajectory into windows that do not overlap and cover it.

    Raises:
        ValueError: if the horizon is not a multiple of the window.
    """
    horizon, dim = x.shape
    if window < 1 or horizon % window:
        raise ValueError(
            f"horizon {horizon} is not a multiple of window {window}; "
            "choose a window that divides it"
        )
    if strided:
        return x.reshape(window, horizon // window, dim).swapaxes(0, 1)
    return x.reshape(horizon // window, window, dim)
