"""Blocks of Diffuser's temporal networks (Janner et al., 2022, appendix C)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffreward.networks.layers import (
    Activation,
    Conv1d,
    Features,
    GroupNorm,
    Linear,
    activation_fn,
    sinusoidal_embedding,
)
from diffreward.types import Time


class TimeMLP(nn.Module):
    """Embeds the noise level in ``dim`` numbers."""

    dim: int
    activation: Activation = "mish"

    @nn.compact
    def __call__(self, t: Time) -> Float[Array, " dim"]:
        """Applies the sinusoidal embedding and two linear layers."""
        hidden = Linear(4 * self.dim, name="hidden")(sinusoidal_embedding(t, self.dim))
        return Linear(self.dim, name="out")(activation_fn(self.activation)(hidden))


class ConvBlock(nn.Module):
    """Convolution, group normalisation, activation."""

    features: int
    activation: Activation = "mish"
    taps: int = 5
    groups: int = 8

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, "length c_out"]:
        """Applies the block."""
        h = Conv1d(self.features, self.taps, name="conv")(x)
        h = GroupNorm(self.groups, name="norm")(h)
        return activation_fn(self.activation)(h)


class ResidualTemporalBlock(nn.Module):
    """Two convolution blocks with the time embedding added in between."""

    features: int
    activation: Activation = "mish"

    @nn.compact
    def __call__(
        self, x: Features, emb: Float[Array, " time"]
    ) -> Float[Array, "length c_out"]:
        """Applies the block; the residual is a 1x1 convolution if the width changes."""
        shift = Linear(self.features, name="time")(activation_fn(self.activation)(emb))
        h = ConvBlock(self.features, self.activation, name="block_0")(x) + shift[None]
        h = ConvBlock(self.features, self.activation, name="block_1")(h)
        if x.shape[1] != self.features:
            x = Linear(self.features, name="skip")(x)
        return h + x


class LinearAttention(nn.Module):
    """Residual, pre-normalised linear attention (Shen et al., 2021).

    Only the keys pass a softmax, over the length, so the cost is linear in it.
    """

    heads: int = 4
    head_dim: int = 32

    @nn.compact
    def __call__(self, x: Features) -> Features:
        """Attends along the length."""
        length, channels = x.shape
        inner = self.heads * self.head_dim
        normed = nn.LayerNorm(1e-5, use_fast_variance=False, name="norm")(x)
        qkv = Linear(3 * inner, use_bias=False, name="qkv")(normed)
        qkv = qkv.reshape(length, 3, self.heads, self.head_dim)
        q, k, v = qkv[:, 0] * self.head_dim**-0.5, qkv[:, 1], qkv[:, 2]
        context = jnp.einsum("lhd,lhe->hde", jax.nn.softmax(k, axis=0), v)
        out = jnp.einsum("hde,lhd->lhe", context, q).reshape(length, inner)
        return x + Linear(channels, name="out")(out)
