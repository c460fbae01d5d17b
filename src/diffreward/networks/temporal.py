"""Diffuser's temporal U-Net (Janner et al., 2022)."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffreward.networks.blocks import (
    ConvBlock,
    LinearAttention,
    ResidualTemporalBlock,
    TimeMLP,
)
from diffreward.networks.layers import Downsample, Features, Linear, Upsample
from diffreward.types import Time, Traj


class TemporalUnet(nn.Module):
    """U-Net over the horizon: the denoiser of the paper's trajectory experiments.

    As in the published network the full-resolution skip is not used, and with ``n``
    levels the horizon is halved n-1 times.
    """

    dim: int = 32
    dim_mults: Sequence[int] = (1, 2, 4, 8)
    """Channels per level, in units of ``dim``."""
    attention: bool = False
    """Linear attention after every pair of residual blocks."""
    out_dim: int | None = None
    """Numbers per step of the output; those of the input by default."""

    @nn.compact
    def __call__(self, x: Traj, t: Time) -> Float[Array, "horizon out"]:
        """Maps (x_t, t) to a trajectory.

        Raises:
            ValueError: if the horizon cannot be halved often enough.
        """
        horizon, dim_in = x.shape
        factor = 2 ** (len(self.dim_mults) - 1)
        if horizon % factor:
            raise ValueError(
                f"horizon {horizon} is not a multiple of {factor}, as a U-Net of "
                f"{len(self.dim_mults)} levels needs; pad it or use fewer levels"
            )
        widths = [self.dim * m for m in self.dim_mults]
        emb = TimeMLP(self.dim, name="time")(t).astype(x.dtype)

        def attend(h: Features, name: str) -> Features:
            return LinearAttention(name=name)(h) if self.attention else h

        def level(h: Array, width: int, name: str) -> Array:
            h = ResidualTemporalBlock(width, name=f"{name}_res_0")(h, emb)
            h = ResidualTemporalBlock(width, name=f"{name}_res_1")(h, emb)
            return attend(h, f"{name}_attn")

        h, skips = x, []
        for i, width in enumerate(widths):
            h = level(h, width, f"down_{i}")
            skips.append(h)
            if i < len(widths) - 1:
                h = Downsample(name=f"down_{i}_resample")(h)

        h = ResidualTemporalBlock(widths[-1], name="mid_res_0")(h, emb)
        h = attend(h, "mid_attn")
        h = ResidualTemporalBlock(widths[-1], name="mid_res_1")(h, emb)

        for i in reversed(range(1, len(widths))):
            h = jnp.concatenate([h, skips[i]], axis=1)
            h = level(h, widths[i - 1], f"up_{i}")
            h = Upsample(name=f"up_{i}_resample")(h)

        h = ConvBlock(widths[0], name="final")(h)
        return Linear(self.out_dim or dim_in, name="head")(h)
