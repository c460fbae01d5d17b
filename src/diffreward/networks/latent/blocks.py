"""Parts that the U-Net and the autoencoder share, for one image (height, width, channels).

Modules compute in the precision of their parameters; normalisation statistics and
attention weights are float32.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffreward.networks.conv2d import Conv2D

# Sizes are not tied together (underscores): input and output differ in them.
Image = Float[Array, "_height _width _channels"]
Tokens = Float[Array, "_tokens _features"]


def group_norm(groups: int, eps: float, name: str) -> nn.GroupNorm:
    """Group normalisation over one image; PyTorch's axes."""
    return nn.GroupNorm(groups, epsilon=eps, reduction_axes=(-3, -2, -1), name=name)


def conv3(channels: int, name: str) -> Conv2D:
    """A 3 x 3 convolution with one pixel of zeros around the image."""
    return Conv2D(channels, name=name)


class ResidualBlock2D(nn.Module):
    """Two normalised convolutions; the time embedding is added between them.

    With ``scale`` it scales and shifts what the second normalisation gives instead.
    """

    channels: int
    groups: int
    eps: float
    scale: bool = False

    @nn.compact
    def __call__(self, x: Image, emb: Array | None = None) -> Image:
        """Maps an image to one of ``channels`` channels."""
        h = nn.silu(group_norm(self.groups, self.eps, "norm1")(x))
        h = conv3(self.channels, "conv1")(h)
        norm = group_norm(self.groups, self.eps, "norm2")
        if emb is None:
            h = norm(h)
        else:
            width = self.channels * (2 if self.scale else 1)
            told = nn.Dense(width, name="time_emb_proj")(nn.silu(emb))[None, None]
            if self.scale:
                scale, shift = jnp.split(told, 2, axis=-1)
                h = norm(h) * (1 + scale) + shift
            else:
                h = norm(h + told)
        h = conv3(self.channels, "conv2")(nn.silu(h))
        if x.shape[-1] != self.channels:
            x = nn.Dense(self.channels, name="conv_shortcut")(x)
        return x + h


class Downsample2D(nn.Module):
    """Halves the image. ``pad_after`` adds zeros on the far sides only."""

    pad_after: bool = False

    @nn.compact
    def __call__(self, x: Image) -> Image:
        """Maps (h, w, c) to (h / 2, w / 2, c)."""
        around = ((0, 1), (0, 1)) if self.pad_after else ((1, 1), (1, 1))
        return Conv2D(x.shape[-1], (3, 3), (2, 2), around, name="conv")(x)


class Upsample2D(nn.Module):
    """Doubles every pixel and convolves."""

    @nn.compact
    def __call__(self, x: Image) -> Image:
        """Maps (h, w, c) to (2 h, 2 w, c)."""
        return conv3(x.shape[-1], "conv")(x.repeat(2, axis=0).repeat(2, axis=1))


def attend(q: Tokens, k: Tokens, v: Tokens, heads: int) -> Tokens:
    """Scaled dot-product attention of one sequence to another, without a mask."""
    cut = lambda x: x.reshape(x.shape[0], heads, -1)
    out = jax.nn.dot_product_attention(cut(q), cut(k), cut(v))
    return out.reshape(q.shape)


class Attention(nn.Module):
    """Attention of tokens to ``context`` (by default to themselves)."""

    heads: int

    @nn.compact
    def __call__(self, x: Tokens, context: Tokens | None = None) -> Tokens:
        """Maps tokens to tokens of the same width."""
        context = x if context is None else context
        project = lambda name: nn.Dense(x.shape[-1], use_bias=False, name=name)
        q, k, v = project("to_q")(x), project("to_k")(context), project("to_v")(context)
        return nn.Dense(x.shape[-1], name="to_out_0")(attend(q, k, v, self.heads))


class GatedFeedForward(nn.Module):
    """GEGLU (Shazeer, 2020): one half of a projection gates the other."""

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        """Maps tokens to tokens of the same width."""
        h, gate = jnp.split(nn.Dense(8 * x.shape[-1], name="net_0_proj")(x), 2, axis=-1)
        h = h * jax.nn.gelu(gate, approximate=False)
        return nn.Dense(x.shape[-1], name="net_2")(h)


class TransformerBlock(nn.Module):
    """Self-attention, attention to the prompt, feed-forward; each added to its input."""

    heads: int

    @nn.compact
    def __call__(self, x: Tokens, context: Tokens) -> Tokens:
        """Maps tokens to tokens of the same width."""
        norm = lambda name: nn.LayerNorm(epsilon=1e-5, name=name)
        x = x + Attention(self.heads, name="attn1")(norm("norm1")(x))
        x = x + Attention(self.heads, name="attn2")(norm("norm2")(x), context)
        return x + GatedFeedForward(name="ff")(norm("norm3")(x))


class Transformer2D(nn.Module):
    """Transformer over the pixels of an image, added to it."""

    heads: int
    groups: int
    depth: int = 1

    @nn.compact
    def __call__(self, x: Image, context: Tokens) -> Image:
        """Maps an image to one of the same shape."""
        width = x.shape[-1]
        h = group_norm(self.groups, 1e-6, "norm")(x).reshape(-1, width)
        h = nn.Dense(width, name="proj_in")(h)
        for i in range(self.depth):
            h = TransformerBlock(self.heads, name=f"transformer_blocks_{i}")(h, context)
        return x + nn.Dense(width, name="proj_out")(h).reshape(x.shape)


class PixelAttention(nn.Module):
    """Self-attention over the pixels of an image, added to it."""

    groups: int
    """Of the normalisation; 0 for none."""
    eps: float
    heads: int = 1

    @nn.compact
    def __call__(self, x: Image) -> Image:
        """Maps an image to one of the same shape."""
        width = x.shape[-1]
        h = group_norm(self.groups, self.eps, "group_norm")(x) if self.groups else x
        h = h.reshape(-1, width)
        q, k, v = (nn.Dense(width, name=name)(h) for name in ("to_q", "to_k", "to_v"))
        h = nn.Dense(width, name="to_out_0")(attend(q, k, v, self.heads))
        return x + h.reshape(x.shape)
