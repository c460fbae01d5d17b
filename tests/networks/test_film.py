"""The U-Net of diffusion policies against loops in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.networks import FilmUnet
from tests.networks.reference import (
    conv,
    conv_transposed,
    group_norm,
    linear,
    mish,
    random_params,
)

WIDTHS, GROUPS, TIME = (8, 16), 4, 8


def film_conv(p, x, groups):
    h = conv(x, p["conv"]["kernel"]) + p["conv"]["bias"]
    return mish(group_norm(h, p["norm"]["scale"], p["norm"]["shift"], groups))


def film_block(p, x, told, scale):
    h = film_conv(p["block_0"], x, GROUPS)
    film = linear(p["time"], mish(told))
    if scale:  # the first half multiplies, the second is added
        half = len(film) // 2
        h = film[None, :half] * h + film[None, half:]
    else:
        h = h + film[None]
    h = film_conv(p["block_1"], h, GROUPS)
    return h + (linear(p["skip"], x) if "skip" in p else x)


def film_unet(p, x, t, condition, scale):
    rates = np.exp(-np.log(1e4) * np.arange(TIME // 2) / (TIME // 2 - 1))
    embedded = np.concatenate([np.sin(t * rates), np.cos(t * rates)])
    embedded = linear(p["time"]["out"], mish(linear(p["time"]["hidden"], embedded)))
    told = np.concatenate([embedded, condition])
    block = lambda name, h: film_block(p[name], h, told, scale)
    first = block("down_0_res_1", block("down_0_res_0", x))
    q = p["down_0_resample"]
    h = conv(first, q["kernel"], stride=2) + q["bias"]
    second = block("down_1_res_1", block("down_1_res_0", h))
    h = block("mid_res_1", block("mid_res_0", second))
    h = np.concatenate([h, second], axis=1)
    h = block("up_1_res_1", block("up_1_res_0", h))
    q = p["up_1_resample"]
    h = conv_transposed(h, q["kernel"]) + q["bias"]
    return linear(p["head"], film_conv(p["final"], h, 8))


@pytest.mark.parametrize("scale", [True, False])
def test_every_part_is_where_the_paper_has_it(scale):
    module = FilmUnet(WIDTHS, TIME, 5, GROUPS, scale)
    rng = np.random.default_rng(0)
    x, condition = rng.normal(size=(8, 3)), rng.normal(size=5)
    given = jnp.asarray(x, jnp.float32), jnp.int32(7), jnp.asarray(condition, jnp.float32)
    params = random_params(module, *given)
    exact = jax.tree.map(lambda v: np.asarray(v, np.float64), params["params"])
    wanted = film_unet(exact, x, 7, condition, scale)
    np.testing.assert_allclose(module.apply(params, *given), wanted, atol=2e-4)
    # Another condition is another answer.
    other = module.apply(params, given[0], given[1], -given[2])
    assert np.abs(np.asarray(other) - wanted).max() > 0.01


def test_a_chunk_that_cannot_be_halved_is_refused():
    with pytest.raises(ValueError, match="a chunk of 6 actions is no multiple of 4"):
        random_params(FilmUnet((8, 8, 8), TIME), jnp.zeros((6, 2)), jnp.int32(0))
