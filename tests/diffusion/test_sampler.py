"""Samplers against laws whose diffused score is known."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.data import laws
from diffreward.diffusion import (
    Condition,
    cosine,
    ddim_levels,
    ddim_step,
    ddpm_step,
    sample,
)

SCHEDULE = cosine(50)
LAW = laws.gaussian(
    jnp.array([1.0, -2.0]), jnp.array([[0.5, 0.2], [0.2, 0.3]], jnp.float32)
)
N = 4000


def exact(x_t, t):
    return laws.eps(LAW, x_t, SCHEDULE.alpha_bar[t])


def draw_many(key, **kwargs):
    one = lambda k: sample(exact, SCHEDULE, k, (2,), **kwargs)
    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(key, N)))


@pytest.mark.parametrize(
    "kwargs",
    [{}, {"method": "ddim"}, {"method": "ddim", "eta": 1.0}],
    ids=["ddpm", "ddim", "ddim-eta"],
)
def test_samples_have_the_law(key, kwargs):
    x = draw_many(key, **kwargs)
    # Five standard errors of a mean, and the discretisation error of 50 steps.
    np.testing.assert_allclose(x.mean(0), LAW.means[0], atol=5 * 0.7 / N**0.5)
    np.testing.assert_allclose(np.cov(x.T), LAW.covariances[0], atol=0.06)


@pytest.mark.parametrize("method", ["ddpm", "ddim"])
def test_scan_equals_a_python_loop(key, method):
    schedule = cosine(6)
    start_key, chain_key = jax.random.split(key)
    x = jax.random.normal(start_key, (2,))
    for t in range(5, -1, -1):
        k = jax.random.fold_in(chain_key, t)
        if method == "ddpm":
            x = ddpm_step(exact, schedule, k, x, jnp.int32(t))
        else:
            x = ddim_step(exact, schedule, k, x, jnp.int32(t), jnp.int32(t - 1))
    got = sample(exact, schedule, key, (2,), method=method)
    np.testing.assert_allclose(got, x, rtol=1e-4, atol=1e-5)


def test_conditioned_samples_keep_the_condition_and_the_conditional_law(key):
    condition = Condition(jnp.array([True, False]), jnp.array([1.6, 0.0]))

    def conditional(x_t, t):
        # The law of entry 1 given that entry 0 is *clean*: a Gaussian of its own.
        mean = -2.0 + 0.2 / 0.5 * (x_t[0] - 1.0)
        law = laws.gaussian(mean[None], jnp.array([[0.3 - 0.2**2 / 0.5]]))
        return jnp.append(0.0, laws.eps(law, x_t[1:], SCHEDULE.alpha_bar[t]))

    one = lambda k: sample(conditional, SCHEDULE, k, (2,), condition=condition)
    x = np.asarray(jax.vmap(one)(jax.random.split(key, N)))
    np.testing.assert_array_equal(x[:, 0], np.float32(1.6))
    np.testing.assert_allclose(x[:, 1].mean(), -2 + 0.4 * 0.6, atol=0.05)
    np.testing.assert_allclose(x[:, 1].var(), 0.22, atol=0.03)


def test_levels_of_a_short_ddim_chain():
    np.testing.assert_array_equal(ddim_levels(10, 4), [9, 6, 3, 0])
    with pytest.raises(ValueError, match=r"must be in \[1, 10\], got 11"):
        ddim_levels(10, 11)


def test_bad_arguments(key):
    with pytest.raises(ValueError, match="ddpm visits every level"):
        sample(exact, SCHEDULE, key, (2,), num_evaluations=5)


def test_one_compilation(key):
    traced = chex.assert_max_traces(lambda k: sample(exact, SCHEDULE, k, (2,)), n=1)
    fast = jax.jit(traced)
    for i in range(3):
        fast(jax.random.fold_in(key, i))
