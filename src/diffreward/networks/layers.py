"""Layers shared by the networks: activations, time embedding, PyTorch-style linear."""

from collections.abc import Callable
from typing import Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffreward.types import Step

Activation = Literal["mish", "silu", "leaky_relu"]


def mish(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """``x tanh(softplus(x))`` (Misra, 2019), with one exponential.

    With n = e^x (e^x + 2), tanh(log(1 + e^x)) = n / (n + 2) exactly. Beyond 20 the ratio
    is 1 in float32, and the clip keeps e^(2x) finite.
    """
    e = jnp.exp(jnp.minimum(x, 20.0))
    n = e * (e + 2.0)
    return x * (n / (n + 2.0))


def leaky_relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """LeakyReLU with PyTorch's slope of 0.01: its second derivative is exactly zero."""
    return jnp.where(x >= 0, x, 0.01 * x)


def activation_fn(name: Activation) -> Callable[[Array], Array]:
    """Looks an activation up by name.

    Raises:
        ValueError: for an unknown name.
    """
    known = {"mish": mish, "silu": jax.nn.silu, "leaky_relu": leaky_relu}
    if name not in known:
        names = ", ".join(get_args(Activation))
        raise ValueError(f"unknown activation {name!r}; use one of: {names}")
    return known[name]


def sinusoidal_embedding(t: Step, dim: int) -> Float[Array, " dim"]:
    """``[sin, cos]`` of the raw index at dim/2 frequencies from 1 down to 1e-4."""
    half = dim // 2
    freqs = jnp.exp(-jnp.log(1e4) / (half - 1) * jnp.arange(half, dtype=jnp.float32))
    angles = t.astype(jnp.float32) * freqs
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])
