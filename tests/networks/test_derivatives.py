"""Every activation and every hand-written derivative against float64, to third order."""

import importlib
import pkgutil
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Primitive

import diffreward
from diffreward.networks import conv, layers
from diffreward.networks.latent import text_encoder

HAND_WRITTEN = {"mish", "_mish_slope", "conv1d", "conv1d_kernel_grad"}
"""What the tests below differentiate."""

ORDERS = 4
TOLERANCES = [(jnp.float32, 3e-6), (jnp.bfloat16, 3e-2)]
"""A few roundings of numbers of order one: float32 has 24 bits, bfloat16 has 8."""

GRID = np.arange(-60, 60, 1 / 64) + 1 / 128  # without 0, where leaky_relu has a corner

# Other formulas than the package's, and in float64: nothing overflows there.
REFERENCES = {
    "mish": lambda x: x * jnp.tanh(jnp.logaddexp(x, 0)),
    "silu": lambda x: x / (1 + jnp.exp(-x)),
    "leaky_relu": lambda x: 0.505 * x + 0.495 * jnp.abs(x),
    "quick_gelu": lambda x: x / (1 + jnp.exp(-1.702 * x)),
    "gelu": lambda x: x * (1 + jax.lax.erf(x / np.sqrt(2))) / 2,
}
ACTIVATIONS = {
    **{name: layers.activation_fn(name) for name in get_args(layers.Activation)},
    "quick_gelu": text_encoder.quick_gelu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
}


def orders(fn, x):
    """Value and derivatives of a function of numbers, (orders, len(x)), as float64."""
    fns = [fn]
    while len(fns) < ORDERS:
        fns.append(jax.grad(fns[-1]))
    every = jax.jit(jax.vmap(lambda x: jnp.stack([f(x) for f in fns]), out_axes=1))
    return np.asarray(every(x), np.float64)


def test_every_hand_written_derivative_is_tested_here():
    found = set()
    for info in pkgutil.walk_packages(diffreward.__path__, "diffreward."):
        if info.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(info.name)).values():
            if isinstance(value, jax.custom_jvp | jax.custom_vjp):
                found.add(value.__name__)
            elif isinstance(value, Primitive):
                found.add(value.name)
    assert found == HAND_WRITTEN


def test_every_activation_has_a_reference():
    named = {*get_args(layers.Activation), *get_args(text_encoder.TextActivation)}
    assert set(ACTIVATIONS) == set(REFERENCES) == named


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_and_three_derivatives(name, dtype, tolerance):
    x = jnp.asarray(GRID, dtype)
    got = orders(ACTIVATIONS[name], x)
    with jax.enable_x64(True):
        expected = orders(REFERENCES[name], jnp.asarray(np.asarray(x), jnp.float64))
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


def test_mish_is_finite_wherever_its_argument_is():
    largest = float(jnp.finfo(jnp.float32).max)
    x = jnp.array([-largest, -1e4, -104, -88, 88, 1e4, largest])
    value, *derivatives = orders(layers.mish, x)
    np.testing.assert_array_equal(value, np.maximum(x, 0))
    np.testing.assert_allclose(derivatives[0], x > 0, atol=1e-30)
    np.testing.assert_allclose(derivatives[1:], 0, atol=1e-10)


def test_mish_is_differentiated_forwards_backwards_and_both():
    x = jnp.asarray(GRID, jnp.float32)
    total = lambda x: layers.mish(x).sum()
    slope = jax.grad(total)
    push = lambda fn, x: jax.jvp(fn, (x,), (jnp.ones_like(x),))[1]
    _, first, second, third = orders(layers.mish, x)
    for found, expected in (
        (push(layers.mish, x), first),
        (jax.linearize(layers.mish, x)[1](jnp.ones_like(x)), first),
        (push(slope, x), second),
        (jax.grad(lambda x: push(layers.mish, x).sum())(x), second),
        (jax.jit(jax.linearize(slope, x)[1])(jnp.ones_like(x)), second),
        (jax.grad(lambda x: push(slope, x).sum())(x), third),
        (push(lambda x: push(slope, x), x), third),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def numpy_conv(x, kernel, transposed):
    """By its definition: row l of the output reads row l + k - taps // 2 of the input."""
    taps, length = kernel.shape[1], x.shape[2]
    y = np.zeros((*x.shape[:3], kernel.shape[2 if transposed else 3]))
    for k, row in np.ndindex(taps, length):
        read = row + k - taps // 2
        if 0 <= read < length and not transposed:
            y[:, :, row] += np.einsum("mbi,mio->mbo", x[:, :, read], kernel[:, k])
        elif 0 <= read < length:
            y[:, :, read] += np.einsum("mbo,mio->mbi", x[:, :, row], kernel[:, k])
    return y


def numpy_kernel_grad(x, g, taps):
    kernel = np.zeros((len(x), taps, x.shape[3], g.shape[3]))
    for k, row in np.ndindex(taps, x.shape[2]):
        read = row + k - taps // 2
        if 0 <= read < x.shape[2]:
            kernel[:, k] += np.einsum("mbi,mbo->mio", x[:, :, read], g[:, :, row])
    return kernel


def bilinear_maps(length):
    """Of every primitive: itself, its definition, and the shapes of its two arguments."""
    x, y, kernel = (2, 3, length, 4), (2, 3, length, 5), (2, 5, 4, 5)
    return {
        "conv": (conv._conv, lambda a, b: numpy_conv(a, b, False), x, kernel),
        "transposed": (
            lambda a, b: conv._conv(a, b, transposed=True),
            lambda a, b: numpy_conv(a, b, True),
            y,
            kernel,
        ),
        "kernel_grad": (
            lambda a, b: conv._kernel_grad(a, b, 5),
            lambda a, b: numpy_kernel_grad(a, b, 5),
            x,
            y,
        ),
    }


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("length", [4, 7])  # a product, a convolution
@pytest.mark.parametrize("name", ["conv", "transposed", "kernel_grad"])
def test_rules_of_the_convolutions(name, length, dtype, tolerance):
    fn, definition, *shapes = bilinear_maps(length)[name]
    rng = np.random.default_rng(0)
    draw = lambda shape: jnp.asarray(rng.standard_normal(shape), dtype)
    a, b, da, db = (draw(shape) for shape in (*shapes, *shapes))
    a64, b64, da64, db64 = (np.asarray(z, np.float64) for z in (a, b, da, db))

    def close(found, expected):
        # Sums of some 20 products: their roundings add up.
        scale = tolerance * np.abs(expected).max()
        np.testing.assert_allclose(np.asarray(found, np.float64), expected, atol=scale)

    value, tangent = jax.jvp(fn, (a, b), (da, db))
    close(value, definition(a64, b64))
    close(tangent, definition(da64, b64) + definition(a64, db64))
    # The transpose of a linear map f is the one with <g, f(d)> = <transpose(g), d>.
    g = draw(value.shape)
    to_a, to_b = jax.vjp(fn, a, b)[1](g)
    inner = lambda x, y: float(np.vdot(np.asarray(x, np.float64), y))
    every = np.eye(b.size).reshape(-1, *b.shape)
    expected = [inner(g, definition(a64, d)) for d in every]
    close(to_b.ravel(), np.array(expected))
    every = np.eye(a.size).reshape(-1, *a.shape)
    close(to_a.ravel(), np.array([inner(g, definition(d, b64)) for d in every]))


@pytest.mark.parametrize("length", [4, 7])
def test_convolutions_differentiated_three_times_against_lax(length):
    def lax_conv(x, kernel):
        form = ("NWC", "WIO", "NWC")
        y = jax.lax.conv_general_dilated(
            x[None], kernel, (1,), [(2, 2)], dimension_numbers=form
        )
        return y[0]

    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        args = tuple(
            map(jnp.asarray, (rng.normal(size=(length, 3)), rng.normal(size=(5, 3, 2))))
        )
        along = tuple(map(jnp.cos, args))

        def three(fn):
            value = lambda x, kernel: jnp.sin(fn(x, kernel)).sum()
            slope = lambda *args: jax.jvp(value, args, along)[1]
            curvature = lambda *args: jax.jvp(slope, args, along)[1]
            return jax.jit(lambda *args: (slope(*args), jax.grad(curvature, (0, 1))(*args)))

        for found, expected in zip(
            jax.tree.leaves(three(conv.conv1d)(*args)),
            jax.tree.leaves(three(lax_conv)(*args)),
            strict=True,
        ):
            assert found.dtype == jnp.float64
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
