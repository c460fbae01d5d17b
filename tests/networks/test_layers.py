import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.networks import blocks, layers
from tests.networks import reference


def float64(tree):
    return jax.tree.map(lambda a: np.asarray(a, np.float64), tree)


def test_group_norm_against_numpy(key):
    x = 3.0 + 2.0 * jax.random.normal(key, (5, 16))
    module = layers.GroupNorm()
    params = reference.random_params(module, x)
    p = float64(params["params"])
    expected = reference.group_norm(float64(x), p["scale"], p["shift"])
    np.testing.assert_allclose(jax.jit(module.apply)(params, x), expected, atol=1e-5)


def test_group_norm_refuses_widths_it_cannot_group(key):
    with pytest.raises(ValueError, match="4 channels cannot form 8 groups"):
        jax.eval_shape(layers.GroupNorm().init, key, jnp.zeros((3, 4)))


@pytest.mark.parametrize("width", [8, 16])
def test_residual_block_against_numpy(key, width):
    x_key, e_key = jax.random.split(key)
    x, emb = jax.random.normal(x_key, (6, 8)), jax.random.normal(e_key, (4,))
    module = blocks.ResidualTemporalBlock(width)
    params = reference.random_params(module, x, emb)
    expected = reference.residual_block(*float64((params["params"], x, emb)))
    np.testing.assert_allclose(jax.jit(module.apply)(params, x, emb), expected, atol=1e-5)


def test_linear_attention_against_numpy(key):
    x = jax.random.normal(key, (5, 16))
    module = blocks.LinearAttention()
    params = reference.random_params(module, x)
    expected = reference.linear_attention(*float64((params["params"], x)))
    np.testing.assert_allclose(jax.jit(module.apply)(params, x), expected, atol=2e-5)


def test_sinusoidal_embedding_against_numpy():
    frequencies = np.array([1.0, 10000 ** -(1 / 3), 10000 ** -(2 / 3), 1e-4])
    expected = np.concatenate([np.sin(7 * frequencies), np.cos(7 * frequencies)])
    embedding = layers.sinusoidal_embedding(jnp.int32(7), 8)
    np.testing.assert_allclose(embedding, expected, atol=1e-6)
    with pytest.raises(ValueError, match="even dim"):
        layers.sinusoidal_embedding(jnp.int32(7), 2)


def test_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="unknown activation 'relu'; did you mean 'lea"):
        layers.activation_fn("relu")


@pytest.mark.parametrize(
    ("module", "shape", "fan_in"),
    [
        (layers.Linear(400), (100,), 100),
        (layers.Conv1d(64, 5), (8, 48), 240),
        (layers.Downsample(), (8, 64), 192),
        (layers.Upsample(), (8, 64), 256),
    ],
)
def test_initial_range_is_that_of_pytorch(key, module, shape, fan_in):
    params = jax.jit(module.init)(key, jnp.zeros(shape))["params"]
    bound = fan_in**-0.5
    for leaf in jax.tree.leaves(params):
        assert np.abs(leaf).max() <= bound
    kernel = np.asarray(params["kernel"])
    # The variance of U(-b, b) is b^2 / 3.
    np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.02)
