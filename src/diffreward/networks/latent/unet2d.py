"""U-Nets of images: of latents under a prompt, or of pixels, with a label or without.

The first is the noise predictor of the Stable Diffusion v1 family (Rombach et al., 2022),
the second that of DDPM (Ho et al., 2020) and of most unconditional models of pictures.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffreward.networks.latent.blocks import (
    Downsample2D,
    Image,
    PixelAttention,
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
    """Residual blocks, each followed by attention if ``heads`` is not 0."""

    channels: int
    blocks: int
    heads: int
    groups: int
    eps: float
    resample: str = ""
    """``down``, ``up`` or nothing, after the blocks."""
    pad_after: bool = False
    scale: bool = False
    """See :class:`Unet2D`, as for ``pad_after``."""

    @nn.compact
    def __call__(
        self,
        x: Image,
        emb: Array,
        context: Tokens | None,
        skips: Sequence[Image] = (),
    ) -> list[Image]:
        """States after every block, and after resampling.

        Args:
            x: input.
            emb: time embedding.
            context: encoded prompt, or None: pixels attend to each other alone.
            skips: one state of the way down for each block, to be concatenated.
        """
        states = []
        for i in range(self.blocks):
            if skips:
                x = jnp.concatenate([x, skips[i]], axis=-1)
            name = f"resnets_{i}"
            block = ResidualBlock2D(
                self.channels, self.groups, self.eps, self.scale, name=name
            )
            x = block(x, emb)
            if self.heads:
                name = f"attentions_{i}"
                x = _attended(x, context, self.heads, self.groups, self.eps, name)
            states.append(x)
        if self.resample == "down":
            states.append(Downsample2D(self.pad_after, name="downsamplers_0")(x))
        elif self.resample == "up":
            states.append(Upsample2D(name="upsamplers_0")(x))
        return states


class MiddleStage(nn.Module):
    """Residual block, attention if ``heads`` is not 0, residual block."""

    heads: int
    groups: int
    eps: float
    attention_groups: int
    scale: bool = False

    @nn.compact
    def __call__(self, x: Image, emb: Array, context: Tokens | None) -> Image:
        """Maps an image to one of the same shape."""
        block = lambda name: ResidualBlock2D(
            x.shape[-1], self.groups, self.eps, self.scale, name=name
        )
        x = block("resnets_0")(x, emb)
        if self.heads:
            groups, name = self.attention_groups, "attentions_0"
            x = _attended(x, context, self.heads, groups, self.eps, name)
        return block("resnets_1")(x, emb)


def _attended(
    x: Image, context: Tokens | None, heads: int, groups: int, eps: float, name: str
) -> Image:
    """Attention of pixels, to a prompt as well where there is one."""
    if context is None:
        return PixelAttention(groups, eps, heads, name=name)(x)
    return Transformer2D(heads, groups, name=name)(x, context)


class Unet2D(nn.Module):
    """Predicts the noise of an image, given its level and what it is told beside it."""

    widths: tuple[int, ...] = (320, 640, 1280, 1280)
    blocks: int = 2
    """Residual blocks per stage on the way down; one more on the way up."""
    attention: tuple[bool, ...] = (True, True, True, False)
    """Which stages, first to last on the way down, have attention."""
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
    classes: int = 0
    """Labels; 0 for a model without."""
    pad_after: bool = False
    """Halve images with zeros on their far sides only, as DDPM does."""
    scale: bool = False
    """The time embedding scales normalised features as well (Dhariwal & Nichol, 2021)."""
    middle_attention: bool = True
    middle_groups: int | None = None
    """Of the attention in the middle, if not ``groups``; 0: no normalisation."""

    @nn.compact
    def __call__(
        self,
        x: Image,
        t: Time,
        context: Tokens | None = None,
        label: Float[Array, " classes"] | None = None,
    ) -> Image:
        """Noise prediction for one image.

        Args:
            x: the image, with noise.
            t: its level.
            context: encoded prompt; None for a network whose pixels only see each other.
            label: one-hot, where there are classes.

        Raises:
            ValueError: if there are classes and no label, or the other way round.
        """
        if (label is None) != (self.classes == 0):
            told = "a label" if label is not None else "no label"
            raise ValueError(f"a network of {self.classes} classes is told {told}")
        stage = nn.remat(Stage) if self.remat else Stage
        middle = nn.remat(MiddleStage) if self.remat else MiddleStage
        norm = {"groups": self.groups, "eps": self.eps, "scale": self.scale}
        emb = time_embedding(
            t, self.widths[0], cosine_first=self.cosine_first, freq_shift=self.freq_shift
        )
        emb = TimeEmbedding(4 * self.widths[0], name="time_embedding")(emb.astype(x.dtype))
        if label is not None:
            table = nn.Embed(self.classes, 4 * self.widths[0], name="class_embedding")
            emb = emb + label.astype(x.dtype) @ table.embedding
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
                pad_after=self.pad_after,
                name=f"down_blocks_{i}",
            )
            skips += down(x, emb, context)
            x = skips[-1]
        heads = self.heads[-1] if self.middle_attention else 0
        groups = self.groups if self.middle_groups is None else self.middle_groups
        middle_stage = middle(heads, **norm, attention_groups=groups, name="mid_block")
        x = middle_stage(x, emb, context)
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
