"""Scalar networks on images: the paper's, and a conservative alternative."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffreward.networks.conv2d import Conv2D, conv2d
from diffreward.networks.latent.blocks import Image, Tokens, group_norm
from diffreward.networks.latent.unet2d import Unet2D
from diffreward.networks.layers import sinusoidal_embedding
from diffreward.types import Scalar, Time

GROUPS = 8


class StandardisedConv(nn.Module):
    """A 3 x 3 convolution whose filters have mean 0 and variance 1 (Qiao et al., 2019)."""

    channels: int

    @nn.compact
    def __call__(self, x: Image) -> Image:
        """Maps an image to one of ``channels`` channels."""
        shape = (3, 3, x.shape[-1], self.channels)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        k = kernel.astype(jnp.float32)
        mean, variance = k.mean((0, 1, 2)), k.var((0, 1, 2))
        k = (k - mean[None, None, None]) * jax.lax.rsqrt(variance + 1e-5)[None, None, None]
        return conv2d(x, k.astype(x.dtype)) + bias[None, None]


class ValueResidualBlock(nn.Module):
    """Two standardised convolutions; the time embedding scales and shifts the first."""

    @nn.compact
    def __call__(self, x: Image, emb: Float[Array, " time"]) -> Image:
        """Maps an image to one of the same shape."""
        c = x.shape[-1]
        norm = lambda name: group_norm(GROUPS, 1e-5, name)
        scale, shift = jnp.split(nn.Dense(2 * c, name="time")(nn.silu(emb)), 2)
        h = norm("norm_0")(StandardisedConv(c, name="conv_0")(x))
        h = nn.silu(h * (1 + scale[None, None]) + shift[None, None])
        h = norm("norm_1")(StandardisedConv(c, name="conv_1")(h))
        return x + nn.silu(h)


class ValueUnet(nn.Module):
    """The published image reward: the way down of a U-Net, and a scalar head.

    Its attention module is built but never called in the published code, so it is left
    out. At ``dim`` 32 that leaves 4,595,713 parameters.
    """

    dim: int = 32
    mults: Sequence[int] = (1, 2, 4, 8)

    @nn.compact
    def __call__(self, x: Image, t: Time) -> Scalar:
        """Reward of one noised latent.

        Raises:
            ValueError: if the image cannot be halved as often as it has to be, or ``dim``
                is no multiple of the 8 groups.
        """
        factor = 8 * 2 ** (len(self.mults) - 1)
        if x.shape[0] % factor or x.shape[1] % factor:
            raise ValueError(
                f"ValueUnet with {len(self.mults)} levels takes images whose sides are "
                f"multiples of {factor}, got {x.shape[0]} x {x.shape[1]}; use fewer mults"
            )
        if self.dim % GROUPS:
            raise ValueError(f"dim must be a multiple of {GROUPS}, got {self.dim}")
        emb = sinusoidal_embedding(t, self.dim).astype(x.dtype)
        emb = nn.gelu(nn.Dense(4 * self.dim, name="time_0")(emb), approximate=False)
        emb = nn.Dense(4 * self.dim, name="time_1")(emb)
        h = Conv2D(self.dim, (7, 7), padding=((3, 3), (3, 3)), name="stem")(x)
        for i, mult in enumerate(self.mults):
            for j in range(2):
                h = ValueResidualBlock(name=f"down_{i}_{j}")(h, emb)
            width = self.dim * mult
            if i < len(self.mults) - 1:
                h = nn.Dense(width, name=f"down_{i}")(_unshuffle(h))
            else:
                h = Conv2D(width, name=f"down_{i}")(h)
        for j in range(2):
            h = ValueResidualBlock(name=f"mid_{j}")(h, emb)
        for j in range(3):
            halved = Conv2D(h.shape[-1], (2, 2), (2, 2), ((0, 0), (0, 0)), name=f"pool_{j}")
            h = nn.silu(halved(h))
        return nn.Dense(1, name="head")(jnp.concatenate([h.reshape(-1), emb]))[0]


def _unshuffle(x: Image) -> Image:
    """Every 2 x 2 square of pixels becomes one pixel of four times the channels."""
    h, w, c = x.shape
    x = x.reshape(h // 2, 2, w // 2, 2, c).transpose(0, 2, 4, 1, 3)
    return x.reshape(h // 2, w // 2, 4 * c)


class UnetReward(nn.Module):
    """``<x, f(x, t)>`` with a convolutional U-Net f, smooth; a prompt may condition it."""

    widths: tuple[int, ...] = (32, 64, 128)
    blocks: int = 1
    heads: int = 4
    prompt: bool = False
    """Whether transformers read the prompt; without, there is only the image."""

    @nn.compact
    def __call__(self, x: Image, t: Time, context: Tokens | None = None) -> Scalar:
        """Reward of one noised latent.

        Raises:
            ValueError: if a prompt is needed and not given.
        """
        if self.prompt and context is None:
            raise ValueError("this reward is conditioned on a prompt; give its encoding")
        unread = jnp.zeros((1, 1), x.dtype)
        tokens = unread if context is None or not self.prompt else context
        levels = len(self.widths)
        use = (self.prompt,) * levels
        f = Unet2D(
            widths=self.widths,
            blocks=self.blocks,
            attention=use,
            attention_up=use,
            heads=(self.heads,) * levels,
            out_channels=x.shape[-1],
            groups=GROUPS,
            name="field",
        )
        return jnp.sum(x * f(x, t, tokens))
