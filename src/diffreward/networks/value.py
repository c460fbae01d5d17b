"""Scalar networks of the paper: the locomotion and the maze reward."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffreward.networks.blocks import ResidualTemporalBlock, TimeMLP
from diffreward.networks.layers import Activation, Downsample, Linear, activation_fn
from diffreward.types import Scalar, Time, Traj


class ValueFunction(nn.Module):
    """The downward half of a temporal U-Net and a scalar head.

    The paper's locomotion reward is ``ValueFunction(activation="leaky_relu")``; smooth
    activations train better through the input gradient.
    """

    dim: int = 4
    """Size of the time embedding, and unit of the channels."""
    dim_mults: Sequence[int] = (16, 16, 32, 32)
    activation: Activation = "mish"

    @nn.compact
    def __call__(self, x: Traj, t: Time) -> Scalar:
        """Reward of one noised trajectory."""
        act = activation_fn(self.activation)
        emb = TimeMLP(self.dim, self.activation, name="time")(t).astype(x.dtype)
        widths = [self.dim * m for m in self.dim_mults]
        h = x
        for i, width in enumerate(widths):
            for j in range(2):
                block = ResidualTemporalBlock(width, self.activation, name=f"res_{i}_{j}")
                h = block(h, emb)
            h = Downsample(name=f"down_{i}")(h)
        for i, width in enumerate((widths[-1] // 2, widths[-1] // 4)):
            block = ResidualTemporalBlock(width, self.activation, name=f"mid_{i}")
            h = Downsample(name=f"mid_down_{i}")(block(h, emb))
        h = h.reshape(-1)
        hidden = Linear(h.size // 2, name="hidden")(jnp.concatenate([h, emb]))
        return Linear(1, name="head")(act(hidden))[0]


class SingleStepRewardMLP(nn.Module):
    """MLP on one flattened window and the time embedding: the paper's maze reward.

    As published, the activation also follows the layer of width one. With ``leaky_relu``
    and a pure gradient loss no bias and nothing of the time path ever trains, because
    the second derivative of the activation is zero.
    """

    hidden: Sequence[int] = (128, 64, 32)
    window: int = 4
    activation: Activation = "mish"
    time_dim: int = 32

    @nn.compact
    def __call__(self, x: Float[Array, "window dim"], t: Time) -> Scalar:
        """Reward of one window.

        Raises:
            ValueError: if ``x`` is not one window.
        """
        if x.shape[0] != self.window:
            raise ValueError(
                f"SingleStepRewardMLP takes one window of {self.window} steps, got "
                f"{x.shape[0]}; wrap it in WindowReward for whole trajectories"
            )
        act = activation_fn(self.activation)
        emb = TimeMLP(self.time_dim, self.activation, name="time")(t).astype(x.dtype)
        # One linear layer on [window, emb], in two parts: under a vmap over windows the
        # time part is computed once per trajectory.
        first = self.hidden[0]
        fan_in = x.size + self.time_dim
        h = Linear(first, fan_in=fan_in, name="window")(x.reshape(-1))
        h = h + Linear(first, use_bias=False, fan_in=fan_in, name="level")(emb)
        for i, width in enumerate((*self.hidden[1:], 1)):
            h = Linear(width, name=f"layer_{i}")(act(h))
        return Linear(1, name="head")(act(h))[0]
