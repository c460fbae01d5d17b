"""Convolutions of images as products, against XLA's own and a loop."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.networks import conv2d as module
from diffreward.networks.conv2d import Conv2D, conv2d

CASES = {
    "3 x 3": ((6, 5), (3, 3), (1, 1), ((1, 1), (1, 1))),
    "halved": ((6, 8), (3, 3), (2, 2), ((1, 1), (1, 1))),
    "halved, zeros after": ((6, 8), (3, 3), (2, 2), ((0, 1), (0, 1))),
    "2 x 2": ((6, 8), (2, 2), (2, 2), ((0, 0), (0, 0))),
    "odd sides": ((7, 5), (3, 3), (2, 2), ((1, 1), (1, 1))),
    "one tall filter": ((7, 5), (7, 1), (1, 2), ((3, 3), (0, 0))),
}


def both(name, largest, monkeypatch):
    """Ours and XLA's, as functions of image and kernel, with such arguments."""
    monkeypatch.setattr(module, "LARGEST", largest)
    size, taps, strides, padding = CASES[name]
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    x, kernel = draw(*size, 3), draw(*taps, 3, 4)
    ours = lambda x, k: conv2d(x, k, strides, padding)
    names = ("NHWC", "HWIO", "NHWC")
    theirs = lambda x, k: jax.lax.conv_general_dilated(
        x[None], k, strides, padding, dimension_numbers=names
    )[0]
    return ours, theirs, x, kernel


@pytest.mark.parametrize("largest", [module.LARGEST, 0])
@pytest.mark.parametrize("name", CASES)
def test_values_and_derivatives_are_those_of_a_convolution(name, largest, monkeypatch):
    ours, theirs, x, kernel = both(name, largest, monkeypatch)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    close(ours(x, kernel), theirs(x, kernel))

    def energy(f):
        return lambda x, k: jnp.sum(jnp.sin(f(x, k)))

    def slope(f):
        """Squared gradient by the image: what alignment differentiates again."""
        return lambda x, k: jnp.sum(jnp.square(jax.grad(energy(f))(x, k)))

    for of in (energy, slope):
        found, wanted = (jax.grad(of(f), (0, 1))(x, kernel) for f in (ours, theirs))
        jax.tree.map(close, found, wanted)


def test_an_output_reads_its_own_pixels():
    """The corner of an image of ones sees four ones and five zeros."""
    x, kernel = jnp.ones((4, 4, 1)), jnp.ones((3, 3, 1, 1))
    found = conv2d(x, kernel)[..., 0]
    np.testing.assert_array_equal(found[0], [4, 6, 6, 4])
    np.testing.assert_array_equal(found[1], [6, 9, 9, 6])
    shifted = jnp.zeros((3, 3, 1, 1)).at[0, 2].set(1.0)  # the pixel above, to the right
    pixels = jnp.arange(16.0).reshape(4, 4, 1)
    np.testing.assert_array_equal(conv2d(pixels, shifted)[2, 1, 0], pixels[1, 2, 0])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_module_has_the_parameters_of_flax(dtype):
    x = jax.random.normal(jax.random.key(0), (6, 5, 3), dtype)
    ours = Conv2D(4, (3, 3), (2, 2), name="a")
    theirs = nn.Conv(4, (3, 3), (2, 2), ((1, 1), (1, 1)), name="a")
    params, own = (m.init(jax.random.key(1), x.astype(jnp.float32)) for m in (theirs, ours))
    jax.tree.map(np.testing.assert_array_equal, own, params)
    params = jax.tree.map(lambda p: (p + 0.1).astype(dtype), params)
    found, wanted = ours.apply(params, x), theirs.apply(params, x)
    assert found.dtype == wanted.dtype == dtype
    tolerance = 1e-5 if dtype == jnp.float32 else 0.05
    np.testing.assert_allclose(
        np.asarray(found, np.float32), np.asarray(wanted, np.float32), atol=tolerance
    )
