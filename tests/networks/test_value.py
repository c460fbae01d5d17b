import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.networks import SingleStepRewardMLP, ValueFunction
from tests.networks.reference import random_params
from tests.networks.test_temporal import count


@pytest.mark.parametrize(
    ("horizon", "dim", "parameters"),
    [(32, 14, 1_007_637), (32, 23, 1_011_093), (4, 23, 1_011_093)],
)
def test_value_function_counts_are_the_published_ones(horizon, dim, parameters):
    assert count(ValueFunction(), horizon, dim) == parameters


@pytest.mark.parametrize(
    ("hidden", "window", "parameters"),
    [
        ((32,), 1, 9_635),
        ((32,), 4, 10_211),
        ((32,), 64, 21_731),
        ((32,), 256, 58_595),
        ((128, 64, 32), 1, 23_715),
        ((128, 64, 32), 4, 26_019),
        ((128, 64, 32), 64, 72_099),
        ((128, 64, 32), 256, 219_555),
        ((32, 16, 8, 4), 4, 10_883),
    ],
)
def test_window_mlp_counts_are_the_published_ones(hidden, window, parameters):
    assert count(SingleStepRewardMLP(hidden, window), window, 6) == parameters


@pytest.mark.parity
def test_value_function_against_pytorch(key):
    torch = pytest.importorskip("torch")
    from benchmarks import torch_models

    x_key, t_key = jax.random.split(key)
    x = jax.random.normal(x_key, (3, 8, 6))
    t = jax.random.randint(t_key, (3,), 0, 100)
    module = ValueFunction(dim_mults=(16, 16), activation="leaky_relu")
    params = random_params(module, x[0], t[0])
    act = torch.nn.LeakyReLU(0.01)
    other = torch_models.ValueFunction(6, 8, dim_mults=(16, 16), act=act)
    torch_models.load_flax(other, params["params"])
    with torch.no_grad():
        expected = other(torch.tensor(np.asarray(x)), torch.tensor(np.asarray(t)))
    value = jax.jit(jax.vmap(module.apply, (None, 0, 0)))(params, x, t)
    np.testing.assert_allclose(value, expected.numpy(), atol=1e-5)


def test_window_mlp_against_numpy(key):
    x, t = jax.random.normal(key, (4, 6)), jnp.int32(9)
    module = SingleStepRewardMLP((8, 5), activation="leaky_relu")
    params = random_params(module, x, t)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params["params"])
    leaky = lambda a: np.maximum(a, 0.01 * a)
    frequencies = 10000.0 ** (-np.arange(16) / 15)
    emb = np.concatenate([np.sin(9 * frequencies), np.cos(9 * frequencies)])
    emb = leaky(emb @ p["time"]["hidden"]["kernel"] + p["time"]["hidden"]["bias"])
    emb = emb @ p["time"]["out"]["kernel"] + p["time"]["out"]["bias"]
    first = np.concatenate([p["window"]["kernel"], p["level"]["kernel"]])
    row = np.concatenate([np.asarray(x, np.float64).reshape(-1), emb])
    h = leaky(row @ first + p["window"]["bias"])
    for name in ("layer_0", "layer_1"):
        h = leaky(h @ p[name]["kernel"] + p[name]["bias"])
    expected = h @ p["head"]["kernel"] + p["head"]["bias"]
    np.testing.assert_allclose(jax.jit(module.apply)(params, x, t), expected[0], atol=1e-5)


def test_window_mlp_refuses_a_whole_trajectory(key):
    with pytest.raises(ValueError, match="one window of 4 steps, got 8"):
        jax.eval_shape(SingleStepRewardMLP().init, key, jnp.zeros((8, 6)), jnp.int32(0))
