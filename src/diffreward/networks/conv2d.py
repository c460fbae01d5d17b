"""Two-dimensional convolutions as matrix products where that is the fast form: on CPU.

XLA's CPU compiler has a fast convolution for the forward pass outside of loops alone.
Inside a ``lax.scan`` (several training steps per dispatch, a sampler) and for every
derivative it falls back to a scalar loop, some fifteen times slower than the product of
unfolded pixels with the kernel, whose derivatives are products again.
"""

import functools
import math
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jaxtyping import Array, Float

LARGEST = 2**24
"""Numbers that pixels are unfolded into; beyond that tap by tap, in no more memory."""
AROUND = ((1, 1), (1, 1))


def conv2d(
    x: Float[Array, "height width c_in"],
    kernel: Float[Array, "rows columns c_in c_out"],
    strides: tuple[int, int] = (1, 1),
    padding: tuple[tuple[int, int], tuple[int, int]] = AROUND,
) -> Float[Array, "_height _width c_out"]:
    """Cross-correlation with zeros around the image.

    Args:
        x: the image.
        kernel: one filter per output channel.
        strides: pixels between outputs, down and right.
        padding: zeros before and after, of rows and of columns.
    """
    if jax.default_backend() != "cpu":
        names = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(
            x[None], kernel, strides, padding, dimension_numbers=names
        )
        return y[0]
    rows, columns, c_in, c_out = kernel.shape
    sizes = zip(x.shape[:2], (rows, columns), strides, padding, strict=True)
    out = [(n + sum(pad) - k) // stride + 1 for n, k, stride, pad in sizes]
    padded = jnp.pad(x, (*padding, (0, 0)))

    def taps() -> Iterator[Array]:
        """The pixel that every output reads, for each entry of a filter."""
        for i in range(rows):
            for j in range(columns):
                ends = (i + (out[0] - 1) * strides[0], j + (out[1] - 1) * strides[1])
                yield padded[
                    i : ends[0] + 1 : strides[0], j : ends[1] + 1 : strides[1]
                ].reshape(-1, c_in)

    if rows * columns * c_in * math.prod(out) <= LARGEST:
        unfolded = jnp.concatenate(list(taps()), axis=1)
        y = unfolded @ kernel.reshape(-1, c_out)
    else:
        filters = kernel.reshape(-1, c_in, c_out)
        products = (tap @ k for tap, k in zip(taps(), filters, strict=True))
        y = functools.reduce(jnp.add, products)
    return y.reshape(*out, c_out)


class Conv2D(nn.Module):
    """A convolution of one image, with the parameters of ``nn.Conv``."""

    features: int
    size: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = AROUND

    @nn.compact
    def __call__(
        self, x: Float[Array, "_height _width _channels"]
    ) -> Float[Array, "_rows _columns _features"]:
        """Maps an image to one of ``features`` channels."""
        shape = (*self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=None)
        return conv2d(x, kernel, self.strides, self.padding) + bias[None, None]
