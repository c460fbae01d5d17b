"""CLIP's text encoder (Radford et al., 2021)."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

TextActivation = Literal["quick_gelu", "gelu"]


def quick_gelu(x: Array) -> Array:
    """``x sigmoid(1.702 x)``, the approximation that CLIP was trained with."""
    return x * jax.nn.sigmoid(1.702 * x)


class SelfAttention(nn.Module):
    """Causal self-attention."""

    heads: int

    @nn.compact
    def __call__(self, x: Float[Array, "tokens width"]) -> Float[Array, "tokens width"]:
        """Every token sees itself and those before it."""
        width = x.shape[-1]
        names = ("q_proj", "k_proj", "v_proj")
        q, k, v = (
            nn.Dense(width, name=n)(x).reshape(len(x), self.heads, -1) for n in names
        )
        out = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        return nn.Dense(width, name="out_proj")(out.reshape(x.shape))


class Perceptron(nn.Module):
    """Two layers."""

    hidden: int
    activation: TextActivation

    @nn.compact
    def __call__(self, x: Float[Array, "tokens width"]) -> Float[Array, "tokens width"]:
        """Token by token."""
        h = nn.Dense(self.hidden, name="fc1")(x)
        exact = self.activation == "gelu"
        h = jax.nn.gelu(h, approximate=False) if exact else quick_gelu(h)
        return nn.Dense(x.shape[-1], name="fc2")(h)


class EncoderLayer(nn.Module):
    """Attention and perceptron, each on normalised input and added to it."""

    heads: int
    hidden: int
    activation: TextActivation
    eps: float

    @nn.compact
    def __call__(self, x: Float[Array, "tokens width"]) -> Float[Array, "tokens width"]:
        """Maps tokens to tokens."""
        norm = lambda name: nn.LayerNorm(epsilon=self.eps, name=name)
        x = x + SelfAttention(self.heads, name="self_attn")(norm("layer_norm1")(x))
        mlp = Perceptron(self.hidden, self.activation, name="mlp")
        return x + mlp(norm("layer_norm2")(x))


class TextEncoder(nn.Module):
    """Token identifiers to the states that the U-Net's cross-attention reads."""

    vocabulary: int = 49408
    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    positions: int = 77
    activation: TextActivation = "quick_gelu"
    eps: float = 1e-5

    @nn.compact
    def __call__(self, ids: Int[Array, " tokens"]) -> Float[Array, "tokens width"]:
        """The last hidden state, normalised."""
        tokens = nn.Embed(self.vocabulary, self.width, name="token_embedding")(ids)
        table = nn.Embed(self.positions, self.width, name="position_embedding")
        x = tokens + table(jnp.arange(ids.shape[0]))
        for i in range(self.layers):
            layer = EncoderLayer(
                self.heads, self.hidden, self.activation, self.eps, name=f"layers_{i}"
            )
            x = layer(x)
        return nn.LayerNorm(epsilon=self.eps, name="final_layer_norm")(x)
