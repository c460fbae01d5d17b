"""Energies distilled from models, and rewards that start at them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from diffreward.learn import Denoiser, RewardModel, distillation_task, noise, reward_task
from diffreward.networks import EnergyDenoiser, ResidualEnergy, TrajectoryMLP, apply
from diffreward.reward import SCORE
from diffreward.train import Loop, make_optimiser, optimise
from tests.learn.toy import BASE, EXPERT, MODEL, PINNED, SCHEDULE, SHAPE, normals, windows


@pytest.fixture(autouse=True)
def _numpy_promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


class Linear(nn.Module):
    """f of an energy ``<x, A x + b>``, which holds every affine model with A symmetric."""

    @nn.compact
    def __call__(self, x, t):
        time = self.param("time", nn.initializers.zeros, ()) * t
        flat = nn.Dense(x.size)(x.reshape(-1))
        return flat.reshape(x.shape) + time


STUDENT = EnergyDenoiser(Linear())


def run(task, tmp_path, data, frozen, steps=600, rate=0.05):
    loop = Loop(steps_per_dispatch=steps, checkpoint_every=steps, progress=False)
    chain = make_optimiser(rate, steps=steps, schedule="cosine")
    options = {"data": data, "frozen": frozen, "steps": steps, "seed": 0}
    return optimise(
        task, chain, **options, workdir=tmp_path, name="toy", loop=loop
    ).ema_params


def test_the_loss_is_the_error_of_x_0_over_sigma_by_hand(key):
    task = distillation_task(MODEL._replace(mask_padding=True), STUDENT, 4)
    params = task.init(jax.random.key(5))
    x_0 = normals(6, 4, *SHAPE)
    valid = jnp.ones((4, SHAPE[0]), bool).at[2, 1].set(False)
    loss, metrics = task.loss(params, BASE, key, {"x_0": x_0, "valid": valid})
    noised = noise(SCHEDULE, key, x_0, PINNED)
    kernel, bias = (params["params"]["net"]["Dense_0"][k] for k in ("kernel", "bias"))
    each, residual, signal = [], 0.0, 0.0
    for x, t, ok in zip(noised.x_t, noised.t, valid, strict=True):
        flat = np.asarray(x, np.float64).reshape(-1)
        found = (flat @ (kernel + kernel.T) + bias).reshape(SHAPE)
        wanted = np.asarray(BASE["slope"] * x + BASE["shift"])
        counted = np.asarray(~PINNED & ok[:, None])
        weight = 1 / float(SCHEDULE.sigma[t]) ** 2
        error = weight * ((found - wanted) ** 2 * counted).sum()
        each.append(error / counted.sum())
        residual, signal = residual + error, signal + weight * (wanted**2 * counted).sum()
    np.testing.assert_allclose(loss, np.mean(each), rtol=1e-3)
    np.testing.assert_allclose(metrics["fvu"], residual / signal, rtol=1e-3)


def test_the_energy_of_a_model_that_has_one_is_found(tmp_path, key):
    task = distillation_task(MODEL, STUDENT, 64)
    params = run(task, tmp_path, windows(0.3), BASE)
    x, t = normals(8, *SHAPE), jnp.int32(4)
    wanted = BASE["slope"] * x + BASE["shift"]
    found = apply(STUDENT, params, x, t)
    free = np.asarray(~PINNED)
    np.testing.assert_allclose(found[free], wanted[free], atol=0.05)


def test_a_residual_reward_starts_at_nothing_and_holds_its_start(key):
    net = TrajectoryMLP(8, 1)
    network, energy = ResidualEnergy(net), EnergyDenoiser(net)
    start, other = (
        energy.init(jax.random.key(i), jnp.zeros(SHAPE), jnp.int32(0)) for i in (0, 1)
    )
    x, t = normals(9, *SHAPE), jnp.int32(3)
    params = network.starting_at(start)
    assert float(network.apply(params, x, t)) == 0.0
    still = jax.grad(network.apply, argnums=1)(params, x, t)
    np.testing.assert_allclose(still, 0.0, atol=1e-6)
    params = {"start": start, "energy": other}
    wanted = energy.energy(other, x, t) - energy.energy(start, x, t)
    np.testing.assert_allclose(network.apply(params, x, t), wanted, rtol=1e-6)
    # The gradient reaches the sample through both energies, and parameters through one.
    gradient = jax.grad(network.apply, argnums=1)(params, x, t)
    through = energy.apply(other, x, t) - energy.apply(start, x, t)
    np.testing.assert_allclose(gradient, through, rtol=1e-5, atol=1e-6)
    moved = jax.grad(network.apply)(params, x, t)
    assert not any(np.any(g) for g in jax.tree.leaves(moved["start"]))
    assert all(np.any(g) for g in jax.tree.leaves(moved["energy"]))


def test_training_moves_a_residual_reward_from_the_base_to_the_difference(tmp_path, key):
    """With affine models its optimum is exact, and the start has not moved a bit."""
    start = {"params": {"net": {"Dense_0": {}, "time": jnp.zeros(())}}}
    size = int(np.prod(SHAPE))
    slope, shift = BASE["slope"], BASE["shift"].reshape(-1)
    start["params"]["net"]["Dense_0"] = {"kernel": slope / 2 * jnp.eye(size), "bias": shift}
    reward = RewardModel(ResidualEnergy(Linear()), SCHEDULE, SCORE)
    task = reward_task(MODEL, reward, "mixed", 64, start)
    frozen = {"base": BASE, "expert": EXPERT}
    data = {"base": windows(0.3), "expert": windows(-0.5)}
    params = run(task, tmp_path, data, frozen)
    for left, right in zip(*map(jax.tree.leaves, (params["start"], start)), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6)  # averaging rounds
    x, t = normals(8, *SHAPE), jnp.int32(4)
    found = jax.grad(lambda x: reward.network.apply(params, x, t))(x)
    wanted = (EXPERT["slope"] - slope) * x + EXPERT["shift"] - BASE["shift"]
    free = np.asarray(~PINNED)
    np.testing.assert_allclose(found[free], wanted[free], atol=0.05)


def test_a_pair_of_two_networks_asks_each_its_own(key):
    model = Denoiser(MODEL.network, SCHEDULE, PINNED, expert=STUDENT)
    other = STUDENT.init(key, jnp.zeros(SHAPE), jnp.int32(0))
    pair, x, t = model.pair(BASE, other), normals(3, *SHAPE), jnp.int32(2)
    own = Denoiser(STUDENT, SCHEDULE, PINNED)
    np.testing.assert_array_equal(pair.expert(x, t), own.eps_fn(other)(x, t))
    np.testing.assert_array_equal(pair.base(x, t), MODEL.eps_fn(BASE)(x, t))
    assert model.of_expert.network is STUDENT
    assert MODEL.of_expert == MODEL
