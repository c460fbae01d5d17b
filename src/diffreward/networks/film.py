"""The U-Net of diffusion policies (Chi et al., 2023): actions under an observation."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffreward.networks.blocks import ConvBlock, TimeMLP
from diffreward.networks.layers import Downsample, Features, Linear, Upsample, mish
from diffreward.types import Time, Traj


class FilmBlock(nn.Module):
    """Two convolution blocks; level and condition scale and shift what is between them.

    The scale multiplies as it is, not plus 1 (Perez et al., 2018, FiLM).
    """

    features: int
    taps: int = 5
    groups: int = 8
    scale: bool = True
    """Without, they only shift."""

    @nn.compact
    def __call__(
        self, x: Features, told: Float[Array, " told"]
    ) -> Float[Array, "length c_out"]:
        """Applies the block; the residual is a linear map if the width changes."""
        width = self.features * (2 if self.scale else 1)
        film = Linear(width, name="time")(mish(told))[None]
        block = lambda name: ConvBlock(
            self.features, taps=self.taps, groups=self.groups, name=name
        )
        h = block("block_0")(x)
        if self.scale:
            scale, shift = jnp.split(film, 2, axis=-1)
            h = scale * h + shift
        else:
            h = h + film
        h = block("block_1")(h)
        if x.shape[1] != self.features:
            x = Linear(self.features, name="skip")(x)
        return h + x


class FilmUnet(nn.Module):
    """U-Net over a chunk of actions; every block is told the level and a condition."""

    widths: Sequence[int] = (256, 512, 1024)
    """Channels per level; the chunk is halved between levels."""
    time_dim: int = 128
    taps: int = 5
    groups: int = 8
    scale: bool = True

    @nn.compact
    def __call__(
        self, x: Traj, t: Time, condition: Float[Array, " features"] | None = None
    ) -> Traj:
        """Maps (x_t, t), under a condition, to a chunk of the same shape.

        Raises:
            ValueError: if the chunk cannot be halved often enough.
        """
        factor = 2 ** (len(self.widths) - 1)
        if x.shape[0] % factor:
            raise ValueError(
                f"a chunk of {x.shape[0]} actions is no multiple of {factor}, as a U-Net "
                f"of {len(self.widths)} levels needs"
            )
        told = TimeMLP(self.time_dim, name="time")(t).astype(x.dtype)
        if condition is not None:
            told = jnp.concatenate([told, condition.astype(x.dtype)])

        def level(h: Array, width: int, name: str) -> Array:
            for k in range(2):
                block = FilmBlock(
                    width, self.taps, self.groups, self.scale, name=f"{name}_res_{k}"
                )
                h = block(h, told)
            return h

        h, skips = x, []
        for i, width in enumerate(self.widths):
            h = level(h, width, f"down_{i}")
            skips.append(h)
            if i < len(self.widths) - 1:
                h = Downsample(name=f"down_{i}_resample")(h)
        h = level(h, self.widths[-1], "mid")
        for i in reversed(range(1, len(self.widths))):
            h = jnp.concatenate([h, skips[i]], axis=1)
            h = level(h, self.widths[i - 1], f"up_{i}")
            h = Upsample(name=f"up_{i}_resample")(h)
        h = ConvBlock(self.widths[0], taps=self.taps, name="final")(h)
        return Linear(x.shape[1], name="head")(h)
