"""The noise predictor of the Stable Diffusion v1 family (Rombach et al., 2022)."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffreward.networks.latent.blocks import (
    Downsample2D,
    Image,
    ResidualBlock2D,
    Tokens,
    Transformer2D,
    Upsample2D,
    conv3,
    group_norm,
)
from diffreward.types import Time


def time_embedding(
    t: Time, dim: int, *, cosine_first: bool, freq_shift: int
) -> Float[Array, " dim"]:
    """Sines and cosines of the level at dim/2 frequencies from 1 towards 1e-4."""
    half = dim // 2
    exponents = jnp.arange(half, dtype=jnp.float32) / (half - freq_shift)
    angles = t.astype(jnp.float32) * jnp.exp(-jnp.log(1e4) * exponents)
    parts = [jnp.sin(angles), jnp.cos(angles)]
    return jnp.concatenate(parts[::-1] if cosine_first else parts)


class TimeEmbedding(nn.Module):
    """Two layers on the sinusoidal embedding."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, " dim"]) -> Float[Array, " width"]:
        """The embedding every residual block reads."""
        x = nn.silu(nn.Dense(self.width, name="linear_1")(x))
        return nn.Dense(self.width, name="linear_2")(x)


class Stage(nn.Module):
    """Residual blocks, each followed by a transformer if ``heads`` is not 0."""

    channels: int
    blocks: int
    heads: int
    groups: int
    eps: float
    resample: str = ""
    """``down``, ``up`` or nothing, after the blocks."""

    @nn.compact
    def __call__(
        self, x: Image, emb: Array, context: Tokens, skips: Sequence[Image] = ()
    ) -> list[Image]:
        """States after every block, and after resampling.

        Args:
            x: input.
            emb: time embedding.
            context: encoded prompt.
            skips: one state of the way down for each block, to be concatenated.
        """
        states = []
        for i in range(self.blocks):
            if skips:
                x = jnp.concatenate([x, skips[i]], axis=-1)
            block = ResidualBlock2D(
                self.channels, self.groups, self.eps, name=f"resnets_{i}"
            )
            x = block(x, emb)
            if self.heads:
                attention = Transformer2D(self.heads, self.groups, name=f"attentions_{i}")
                x = attention(x, context)
            states.append(x)
        if self.resample == "down":
            states.append(Downsample2D(name="downsamplers_0")(x))
        elif self.resample == "up":
            states.append(Upsample2D(name="upsamplers_0")(x))
        return states


class MiddleStage(nn.Module):
    """Residual block, transformer, residual block."""

    heads: int
    groups: int
    eps: float

    @nn.compact
    def __call__(self, x: Image, emb: Array, context: Tokens) -> Image:
        """Maps an image to one of the same shape."""
        c = x.shape[-1]
        x = ResidualBlock2D(c, self.groups, self.eps, name="resnets_0")(x, emb)
        x = Transformer2D(self.heads, self.groups, name="attentions_0")(x, context)
        return ResidualBlock2D(c, self.groups, self.eps, name="resnets_1")(x, emb)


class ConditionalUnet2D(nn.Module):
    """Predicts the noise of a latent, given its level and an encoded prompt."""

    widths: tuple[int, ...] = (320, 640, 1280, 1280)
    blocks: int = 2
    """Residual blocks per stage on the way down; one more on the way up."""
    attention: tuple[bool, ...] = (True, True, True, False)
    """Which stages, first to last on the way down, have transformers."""
    attention_up: tuple[bool, ...] = (False, True, True, True)
    """The same on the way up, first to last."""
    heads: tuple[int, ...] = (8, 8, 8, 8)
    """Attention heads per stage on the way down."""
    out_channels: int = 4
    groups: int = 32
    eps: float = 1e-5
    cosine_first: bool = True
    freq_shift: int = 0
    remat: bool = False
    """Forget activations within stages and compute them again for the gradient."""

    @nn.compact
    def __call__(self, x: Image, t: Time, context: Tokens) -> Image:
        """Noise prediction for one latent."""
        stage = nn.remat(Stage) if self.remat else Stage
        middle = nn.remat(MiddleStage) if self.remat else MiddleStage
        norm = {"groups": self.groups, "eps": self.eps}
        emb = time_embedding(
            t, self.widths[0], cosine_first=self.cosine_first, freq_shift=self.freq_shift
        )
        emb = TimeEmbedding(4 * self.widths[0], name="time_embedding")(emb.astype(x.dtype))
        last = len(self.widths) - 1

        x = conv3(self.widths[0], "conv_in")(x)
        skips = [x]
        for i, width in enumerate(self.widths):
            down = stage(
                width,
                self.blocks,
                self.heads[i] if self.attention[i] else 0,
                **norm,
                resample="down" if i < last else "",
                name=f"down_blocks_{i}",
            )
            skips += down(x, emb, context)
            x = skips[-1]
        x = middle(self.heads[-1], **norm, name="mid_block")(x, emb, context)
        for i, width in enumerate(self.widths[::-1]):
            up = stage(
                width,
                self.blocks + 1,
                self.heads[last - i] if self.attention_up[i] else 0,
                **norm,
                resample="up" if i < last else "",
                name=f"up_blocks_{i}",
            )
            taken = [skips.pop() for _ in range(self.blocks + 1)]
            x = up(x, emb, context, taken)[-1]
        x = nn.silu(group_norm(self.groups, self.eps, "conv_norm_out")(x))
        return conv3(self.out_channels, "conv_out")(x)
