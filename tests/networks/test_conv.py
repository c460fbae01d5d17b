import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.networks import conv
from tests.networks import reference
from tests.networks.test_layers import float64


def lax_conv(x, kernel, stride=1):
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x[None], kernel, (stride,), [(pad, pad)], dimension_numbers=("NWC", "WIO", "NWC")
    )[0]


def draw(key, length, taps, batch=()):
    x_key, k_key = jax.random.split(key)
    x = jax.random.normal(x_key, (*batch, length, 3))
    return x, jax.random.normal(k_key, (taps, 3, 2))


@pytest.mark.parametrize("length", [1, 2, 4, 5, 9])
@pytest.mark.parametrize("taps", [1, 3, 5])
def test_conv1d_against_numpy(key, length, taps):
    x, kernel = draw(key, length, taps)
    expected = reference.conv(*float64((x, kernel)))
    np.testing.assert_allclose(conv.conv1d(x, kernel), expected, atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 5, 8])
def test_downsampling_convolution_against_numpy(key, length):
    x, kernel = draw(key, length, 3)
    expected = reference.conv(*float64((x, kernel)), stride=2)
    out = conv.conv1d_down(x, kernel)
    assert out.shape == (-(-length // 2), 2)
    np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_upsampling_convolution_against_numpy(key, length):
    x, kernel = draw(key, length, 4)
    expected = reference.conv_transposed(*float64((x, kernel)))
    np.testing.assert_allclose(conv.conv1d_up(x, kernel), expected, atol=1e-5)


def test_even_taps_are_refused():
    with pytest.raises(ValueError, match="odd taps, got 4"):
        conv.conv1d(jnp.zeros((5, 3)), jnp.zeros((4, 3, 2)))


LOWERINGS = [
    (conv.conv1d, lax_conv, 5, 9),
    (conv.conv1d, lax_conv, 5, 4),
    (conv.conv1d, lax_conv, 3, 1),
    (conv.conv1d_down, lambda x, k: lax_conv(x, k, 2), 3, 8),
    (conv.conv1d_down, lambda x, k: lax_conv(x, k, 2), 3, 5),
]


def assert_same(fn, oracle, *args):
    for got, want in zip(
        jax.tree.leaves(jax.jit(fn)(*args)),
        jax.tree.leaves(jax.jit(oracle)(*args)),
        strict=True,
    ):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3)


def derivatives(fn):
    """Value, first derivatives, and both orders of differentiating once more."""

    def batch_value(x, kernel):
        return jnp.sum(jnp.tanh(jax.vmap(fn, (0, None))(x, kernel)))

    def gradient_norm(x, kernel):
        return jnp.sum(jnp.square(jax.grad(batch_value)(x, kernel)))

    def all_orders(x, kernel):
        gradient = lambda x, kernel: jax.grad(batch_value, (0, 1))(x, kernel)
        return (
            jax.vmap(fn, (0, None))(x, kernel),
            gradient(x, kernel),
            jax.grad(gradient_norm, (0, 1))(x, kernel),
            jax.jvp(gradient, (x, kernel), (jnp.cos(x), jnp.cos(kernel)))[1],
        )

    return all_orders


@pytest.mark.parametrize(("fn", "oracle", "taps", "length"), LOWERINGS)
def test_every_derivative_agrees_with_lax(key, fn, oracle, taps, length):
    x, kernel = draw(key, length, taps, batch=(2,))
    assert_same(derivatives(fn), derivatives(oracle), x, kernel)


def test_populations_agree_with_lax(key):
    x, _ = draw(key, 6, 5, batch=(2,))
    kernels = jax.random.normal(key, (3, 5, 3, 2))
    over = lambda fn: jax.vmap(derivatives(fn), (None, 0))
    assert_same(over(conv.conv1d), over(lax_conv), x, kernels)
    per_example = lambda fn: jax.vmap(
        jax.grad(lambda x, kernel: jnp.sum(jnp.tanh(fn(x, kernel))), 1), (0, None)
    )
    assert_same(per_example(conv.conv1d), per_example(lax_conv), x, kernels[0])


def test_large_inputs_are_cut_and_give_the_same_kernel_gradient(key, monkeypatch):
    x, kernel = draw(key, 16, 5, batch=(8,))
    monkeypatch.setattr(conv, "_LARGE", x.size)
    gradient = lambda fn: jax.grad(
        lambda kernel: jnp.sum(jnp.tanh(jax.vmap(fn, (0, None))(x, kernel)))
    )
    lowered = jax.jit(gradient(conv.conv1d)).lower(kernel)
    assert "stablehlo.while" in lowered.as_text()
    assert_same(gradient(conv.conv1d), gradient(lax_conv), kernel)


def test_a_batch_is_one_convolution_forwards_and_backwards(key):
    x, kernel = draw(key, 9, 5, batch=(16,))
    loss = lambda x, kernel: jnp.sum(
        jnp.square(jax.vmap(conv.conv1d, (0, None))(x, kernel))
    )
    lowered = jax.jit(jax.grad(loss, (0, 1))).trace(x, kernel)
    for platform in ("cpu", "cuda", "tpu"):
        hlo = lowered.lower(lowering_platforms=(platform,)).as_text()
        assert len(re.findall(r"stablehlo\.convolution", hlo)) == 3
        assert not re.findall(r"stablehlo\.(?:while|dot_general)", hlo)
        assert "16x5x3x2" not in hlo  # no kernel gradient per example


def test_every_convolution_is_of_the_form_that_is_fast_in_loops(key):
    x, kernel = draw(key, 9, 5, batch=(16,))
    hlo = jax.jit(derivatives(conv.conv1d)).lower(x, kernel).as_text()
    forms = set(re.findall(r"dim_numbers = (.*?),? ?window", hlo))
    assert forms == {"[b, 0, f]x[0, i, o]->[b, 0, f]"}
    lax_hlo = jax.jit(derivatives(lax_conv)).lower(x, kernel).as_text()
    assert len(set(re.findall(r"dim_numbers = (.*?),? ?window", lax_hlo))) > 1
