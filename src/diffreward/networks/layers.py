"""Layers of the trajectory networks, for one trajectory laid out ``(length, channels)``.

Channels come last, so that normalisation sums contiguous rows and a 1x1 convolution is a
matrix product.
Parameters start as PyTorch's defaults do: uniform within 1/sqrt(fan_in).
"""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffreward.names import choose
from diffreward.networks.conv import conv1d, conv1d_down, conv1d_up
from diffreward.types import Time

Activation = Literal["mish", "silu", "leaky_relu"]
"""Name of an activation; the first two are smooth."""
Features = Float[Array, "length channels"]


SATURATED = 14.0
"""Beyond, mish is x in float32, and its second derivative below 1e-10."""


@jax.custom_jvp
def mish(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """``x tanh(softplus(x))`` (Misra, 2019), with one exponential.

    With e = e^x and n = e (e + 2), tanh(log(1 + e)) = n / (n + 2) exactly. Two derivatives
    are written out, for speed and since those of the quotient have (n + 2)^3 below them,
    which overflows; higher ones are derived from the second.
    """
    e = jnp.exp(jnp.minimum(x, SATURATED))
    n = e * (e + 2)
    return x * (n / (n + 2))


@jax.custom_jvp
def _mish_slope(x: Array) -> Array:
    x = jnp.minimum(x, SATURATED)
    e = jnp.exp(x)
    n = e * (e + 2)
    r = 1 / (n + 2)
    return r * (n + x * (4 * e * (e + 1) * r))


def _mish_curvature(x: Array) -> Array:
    x = jnp.minimum(x, SATURATED)
    e = jnp.exp(x)
    n = e * (e + 2)
    r = 1 / (n + 2)
    return 4 * e * r * r * (2 + 2 * e + x * (1 - 2 * e * n * r))


mish.defjvps(lambda dx, _, x: dx * _mish_slope(x))
_mish_slope.defjvps(lambda dx, _, x: dx * _mish_curvature(x))


def leaky_relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """LeakyReLU with PyTorch's slope of 0.01: its second derivative is exactly zero."""
    return jnp.where(x >= 0, x, 0.01 * x)


def activation_fn(name: str) -> Callable[[Array], Array]:
    """Looks an activation up by name.

    Raises:
        ValueError: for an unknown name.
    """
    known = {"mish": mish, "silu": jax.nn.silu, "leaky_relu": leaky_relu}
    return known[choose("activation", name, known)]


def sinusoidal_embedding(t: Time, dim: int) -> Float[Array, " dim"]:
    """``[sin, cos]`` of the raw index at dim/2 frequencies from 1 down to 1e-4.

    Raises:
        ValueError: if ``dim`` is odd or below 4.
    """
    if dim < 4 or dim % 2:
        raise ValueError(f"a time embedding needs an even dim of at least 4, got {dim}")
    half = dim // 2
    exponents = jnp.arange(half, dtype=jnp.float32) / (half - 1)
    angles = t.astype(jnp.float32) * jnp.exp(-jnp.log(1e4) * exponents)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])


def uniform_init(fan_in: int) -> Callable[..., Array]:
    """PyTorch's default: U(-1/sqrt(fan_in), 1/sqrt(fan_in)), for weights and biases."""
    bound = fan_in**-0.5

    def init(key: Array, shape: tuple[int, ...]) -> Array:
        return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

    return init


def group_normalise(x: Features, groups: int, eps: float = 1e-5) -> Features:
    """Zero mean and unit variance over (channels / groups, length).

    Sums run over the length first, whole rows at a time, and only then within groups:
    reducing both axes of a reshaped array at once does not vectorise on CPU.
    """
    length, channels = x.shape
    size = channels // groups

    def group_mean(a: Array) -> Array:
        sums = a.sum(0).reshape(groups, size).sum(1)
        return jnp.repeat(sums / (length * size), size)

    centred = x - group_mean(x)[None]
    inverse_std = jax.lax.rsqrt(group_mean(jnp.square(centred)) + eps)
    return centred * inverse_std[None]


class Linear(nn.Module):
    """Affine map of the last axis."""

    features: int
    use_bias: bool = True
    fan_in: int | None = None
    """Inputs that set the initial range; those of ``x`` by default."""

    @nn.compact
    def __call__(self, x: Float[Array, "*lead c_in"]) -> Float[Array, "*lead c_out"]:
        """Applies the map."""
        init = uniform_init(self.fan_in or x.shape[-1])
        y = x @ self.param("kernel", init, (x.shape[-1], self.features))
        if self.use_bias:
            bias = self.param("bias", init, (self.features,))
            y = y + jnp.broadcast_to(bias, y.shape)
        return y


class Conv1d(nn.Module):
    """Convolution that keeps the length."""

    features: int
    taps: int

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, "length c_out"]:
        """Applies the convolution."""
        init = uniform_init(self.taps * x.shape[1])
        shape = (self.taps, x.shape[1], self.features)
        kernel = self.param("kernel", init, shape)
        return conv1d(x, kernel) + self.param("bias", init, (self.features,))[None]


class Downsample(nn.Module):
    """Halves the length, rounding up."""

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, "half channels"]:
        """Applies the strided convolution."""
        channels = x.shape[1]
        init = uniform_init(3 * channels)
        kernel = self.param("kernel", init, (3, channels, channels))
        return conv1d_down(x, kernel) + self.param("bias", init, (channels,))[None]


class Upsample(nn.Module):
    """Doubles the length."""

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, "double channels"]:
        """Applies the transposed convolution."""
        channels = x.shape[1]
        # PyTorch counts the fan-in of a transposed kernel over its outputs.
        init = uniform_init(4 * channels)
        kernel = self.param("kernel", init, (4, channels, channels))
        return conv1d_up(x, kernel) + self.param("bias", init, (channels,))[None]


class GroupNorm(nn.Module):
    """Group normalisation (Wu & He, 2018) with a learned scale and shift per channel."""

    groups: int = 8

    @nn.compact
    def __call__(self, x: Features) -> Features:
        """Normalises.

        Raises:
            ValueError: if the channels cannot be grouped.
        """
        channels = x.shape[1]
        if channels % self.groups:
            raise ValueError(
                f"{channels} channels cannot form {self.groups} groups; "
                f"make every width a multiple of {self.groups}"
            )
        scale = self.param("scale", nn.initializers.ones, (channels,))
        shift = self.param("shift", nn.initializers.zeros, (channels,))
        return group_normalise(x, self.groups) * scale[None] + shift[None]
