import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.networks import TemporalUnet
from tests.networks.reference import random_params


def count(module, horizon, dim):
    x, t = jnp.zeros((horizon, dim)), jnp.int32(0)
    params = jax.eval_shape(module.init, jax.random.key(0), x, t)
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("horizon", "dim", "mults", "attention", "parameters"),
    [
        (256, 6, (1, 4, 8), False, 3_682_118),  # maze2d
        (4, 23, (1, 4, 8), True, 4_114_423),  # halfcheetah
        (32, 14, (1, 2, 4, 8), False, 3_956_302),  # hopper
        (32, 23, (1, 2, 4, 8), False, 3_958_327),  # walker2d
    ],
)
def test_parameter_counts_are_the_published_ones(
    horizon, dim, mults, attention, parameters
):
    module = TemporalUnet(dim_mults=mults, attention=attention)
    assert count(module, horizon, dim) == parameters


@pytest.mark.parity
def test_forward_pass_of_the_pytorch_network(key):
    torch = pytest.importorskip("torch")
    from benchmarks import torch_models

    x_key, t_key = jax.random.split(key)
    x = jax.random.normal(x_key, (3, 8, 6))
    t = jax.random.randint(t_key, (3,), 0, 100)
    module = TemporalUnet(dim_mults=(1, 2, 4), attention=True)
    params = random_params(module, x[0], t[0])
    other = torch_models.TemporalUnet(6, 32, (1, 2, 4), attention=True)
    torch_models.load_flax(other, params["params"])
    with torch.no_grad():
        expected = other(torch.tensor(np.asarray(x)), torch.tensor(np.asarray(t)))
    out = jax.jit(jax.vmap(module.apply, (None, 0, 0)))(params, x, t)
    np.testing.assert_allclose(out, expected.numpy(), atol=1e-5)


def test_horizon_that_cannot_be_halved_is_refused():
    with pytest.raises(ValueError, match="horizon 6 is not a multiple of 4"):
        count(TemporalUnet(dim=8, dim_mults=(1, 2, 4)), 6, 3)


def test_out_dim_sets_the_numbers_per_step(key):
    module = TemporalUnet(dim=8, dim_mults=(1, 2), out_dim=5)
    x, t = jnp.zeros((4, 3)), jnp.int32(0)
    assert jax.eval_shape(module.init_with_output, key, x, t)[0].shape == (4, 5)


def test_a_batch_is_one_compiled_program_without_loops(key):
    module = TemporalUnet(dim=8, dim_mults=(1, 2))
    params = random_params(module, jnp.zeros((8, 3)), jnp.int32(0))
    traces = []

    @jax.jit
    def forward(params, x, t):
        traces.append(x.shape)
        return jax.vmap(module.apply, (None, 0, 0))(params, x, t)

    def products(batch):
        x, t = jnp.ones((batch, 8, 3)), jnp.zeros(batch, jnp.int32)
        hlo = forward.lower(params, x, t).as_text()
        return len(re.findall("stablehlo.(?:dot_general|convolution)", hlo)), hlo

    small, _ = products(2)
    large, hlo = products(16)
    assert small == large
    assert "stablehlo.while" not in hlo
    x, t = jnp.ones((16, 8, 3)), jnp.zeros(16, jnp.int32)
    traces.clear()
    for step in range(3):
        forward(params, x * step, t + step)
    assert len(traces) <= 1
