"""Parts of the image U-Nets that the models without a prompt have, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.networks.latent import Unet2D
from diffreward.networks.latent.blocks import (
    Downsample2D,
    PixelAttention,
    ResidualBlock2D,
)
from tests.networks.reference import random_params

EPS = 1e-5


@pytest.fixture(autouse=True)
def _flax_promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def exact(params):
    return jax.tree.map(lambda v: np.asarray(v, np.float64), params["params"])


def norm(p, x, groups):
    out = np.zeros(x.shape)
    size = x.shape[-1] // groups
    for g in range(groups):
        part = np.asarray(x, np.float64)[..., g * size : (g + 1) * size]
        part = (part - part.mean()) / np.sqrt(part.var() + EPS)
        out[..., g * size : (g + 1) * size] = part
    return out * p["scale"] + p["bias"]


def conv3(p, x, stride=1, before=1):
    """Taps of the kernel from ``before`` pixels to the left and above."""
    height, width = x.shape[0] // stride, x.shape[1] // stride
    out = np.zeros((height, width, p["kernel"].shape[-1])) + p["bias"]
    for i in range(height):
        for j in range(width):
            for a in range(3):
                for b in range(3):
                    row, column = stride * i + a - before, stride * j + b - before
                    if 0 <= row < x.shape[0] and 0 <= column < x.shape[1]:
                        out[i, j] += x[row, column] @ p["kernel"][a, b]
    return out


def silu(x):
    return x / (1 + np.exp(-x))


def test_the_time_scales_and_shifts_what_is_normalised():
    module = ResidualBlock2D(8, 4, EPS, scale=True)
    x, emb = draw(4, 4, 4), draw(6, seed=1)
    params = random_params(module, x, emb)
    p = exact(params)
    told = silu(np.asarray(emb)) @ p["time_emb_proj"]["kernel"] + p["time_emb_proj"]["bias"]
    h = conv3(p["conv1"], silu(norm(p["norm1"], x, 4)))
    h = norm(p["norm2"], h, 4) * (1 + told[:8]) + told[8:]
    skip = np.asarray(x) @ p["conv_shortcut"]["kernel"] + p["conv_shortcut"]["bias"]
    wanted = skip + conv3(p["conv2"], silu(h))
    np.testing.assert_allclose(module.apply(params, x, emb), wanted, atol=1e-4)


@pytest.mark.parametrize("groups", [4, 0])
def test_pixels_attend_with_several_heads(groups):
    module = PixelAttention(groups, EPS, heads=2)
    x = draw(2, 3, 8)
    params = random_params(module, x)
    p = exact(params)
    rows = (norm(p["group_norm"], x, groups) if groups else np.asarray(x)).reshape(6, 8)
    q, k, v = (rows @ p[n]["kernel"] + p[n]["bias"] for n in ("to_q", "to_k", "to_v"))
    out = np.zeros((6, 8))
    for cut in (slice(0, 4), slice(4, 8)):
        weights = np.exp(q[:, cut] @ k[:, cut].T / 2)
        out[:, cut] = weights / weights.sum(1, keepdims=True) @ v[:, cut]
    out = out @ p["to_out_0"]["kernel"] + p["to_out_0"]["bias"]
    wanted = np.asarray(x) + out.reshape(2, 3, 8)
    np.testing.assert_allclose(module.apply(params, x), wanted, atol=1e-4)


@pytest.mark.parametrize("after", [True, False])
def test_images_are_halved_from_either_side(after):
    module = Downsample2D(pad_after=after)
    x = draw(4, 6, 2)
    params = random_params(module, x)
    wanted = conv3(exact(params)["conv"], np.asarray(x), stride=2, before=int(not after))
    np.testing.assert_allclose(module.apply(params, x), wanted, atol=1e-5)


def test_a_label_adds_its_row_to_the_time():
    options = {"out_channels": 2, "groups": 4}
    module = Unet2D((8,), 1, (False,), (False,), (1,), classes=3, **options)
    x, t, label = draw(4, 4, 2), jnp.int32(3), jnp.asarray([0.0, 0, 1])
    params = random_params(module, x, t, None, label)
    # The last layer of the time path may hold the row as well.
    plain = {k: v for k, v in params["params"].items() if k != "class_embedding"}
    row = params["params"]["class_embedding"]["embedding"][2]
    last = plain["time_embedding"]["linear_2"]
    last = last | {"bias": last["bias"] + row}
    plain["time_embedding"] = plain["time_embedding"] | {"linear_2": last}
    other = Unet2D((8,), 1, (False,), (False,), (1,), **options)
    np.testing.assert_allclose(
        module.apply(params, x, t, None, label),
        other.apply({"params": plain}, x, t),
        atol=1e-5,
    )
    for network, told in ((module, ()), (other, (label,))):
        with pytest.raises(ValueError, match="classes is told"):
            jax.eval_shape(network.init, jax.random.key(0), x, t, None, *told)
