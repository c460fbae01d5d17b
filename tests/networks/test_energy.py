"""Conservative denoisers: gradients of a scalar, and exact rewards of a pair."""

import jax
import jax.numpy as jnp
import numpy as np

from diffreward.diffusion import cosine, to_eps
from diffreward.networks import EnergyDenoiser, TrajectoryMLP
from diffreward.reward import Pair, relative_score, score_scale

SHAPE = (3, 2)


def test_the_prediction_is_the_gradient_of_the_energy_and_has_no_curl(key):
    net = EnergyDenoiser(TrajectoryMLP(width=8, depth=1))
    x, t = jax.random.normal(key, SHAPE), jnp.int32(2)
    params = net.init(key, x, t)
    flat = lambda v: net.apply(params, v.reshape(SHAPE), t).reshape(-1)
    jacobian = jax.jacfwd(flat)(x.reshape(-1))
    np.testing.assert_allclose(jacobian, jacobian.T, atol=1e-5)
    plain = TrajectoryMLP(width=8, depth=1)
    own = plain.init(key, x, t)
    other = jax.jacfwd(lambda v: plain.apply(own, v.reshape(SHAPE), t).reshape(-1))
    curl = other(x.reshape(-1))
    assert np.abs(curl - curl.T).max() > 0.01
    step = 1e-2 * jnp.ones(SHAPE)
    rise = net.energy(params, x + step, t) - net.energy(params, x - step, t)
    np.testing.assert_allclose(rise / 2, (step * net.apply(params, x, t)).sum(), rtol=2e-2)


def test_the_difference_of_energies_is_the_relative_reward(key):
    schedule = cosine(8)
    net = EnergyDenoiser(TrajectoryMLP(width=8, depth=1))
    x = jax.random.normal(key, SHAPE)
    base, expert = (net.init(k, x, jnp.int32(0)) for k in jax.random.split(key))

    def eps_fn(params):
        return lambda x_t, t: to_eps(schedule, "x_0", x_t, t, net.apply(params, x_t, t))

    pair = Pair(eps_fn(base), eps_fn(expert), schedule)

    def rho(x_t, t):
        difference = net.energy(expert, x_t, t) - net.energy(base, x_t, t)
        return score_scale(schedule, t) * difference

    for t in map(jnp.int32, (0, 4, 7)):
        want = relative_score(pair, x, t)
        scale = np.abs(want).max()
        np.testing.assert_allclose(jax.grad(rho)(x, t), want, atol=2e-4 * scale)
