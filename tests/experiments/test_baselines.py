"""The baselines learn what they should, on laws with known answers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import locomotion as configs
from diffreward import data as d
from experiments import baselines
from experiments.build import build_scalar
from experiments.locomotion import run as locomotion


@pytest.fixture(autouse=True)
def _optax_promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def episodes(mean, seed, count=40, length=20):
    rng = np.random.default_rng(seed)
    rows = count * length
    return d.Episodes.from_arrays(
        rng.normal(mean, 1, (rows, 11)),
        rng.normal(mean, 1, (rows, 3)),
        rewards=np.ones(rows),
        timeouts=np.arange(rows) % length == length - 1,
    )


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    config = configs.get_config("hopper,smoke")
    return config, locomotion.build(config, tmp_path_factory.mktemp("run")).denoiser


def windows(e, normaliser=None):
    normaliser = normaliser or d.Normaliser(
        np.zeros(14, np.float32), np.ones(14, np.float32)
    )
    return d.make_windows(e, normaliser, horizon=8, pad=False)


def fit(task, data, steps=150):
    params = task.init(jax.random.key(0))
    tx = optax.adam(3e-3)
    state = tx.init(params)

    @jax.jit
    def step(params, state, key):
        draw_key, loss_key = jax.random.split(key)
        batch = task.draw(data, draw_key)
        loss = lambda p: task.loss(p, None, loss_key, batch)
        (_, metrics), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = tx.update(grads, state)
        return optax.apply_updates(params, updates), state, metrics

    for i in range(steps):
        params, state, metrics = step(params, state, jax.random.key(i))
    return params, metrics


def test_the_discriminator_tells_the_classes_apart_and_sees_them_equally(setting):
    config, model = setting
    network = build_scalar(config.discriminator)
    task = baselines.discriminator_task(model, network, 32)
    data = {"base": windows(episodes(0, 0)), "expert": windows(episodes(1, 1, count=4))}
    batch = task.draw(data, jax.random.key(0))
    assert len(batch["x_0"]) == 32  # the first half is the base's
    assert batch["x_0"][16:].mean() > 0.5 > batch["x_0"][:16].mean()
    params, _ = fit(task, data)
    logit = baselines.scalar_fn(network, params)
    clean = lambda mean: jnp.full(model.shape, mean)
    assert logit(clean(1.0), jnp.int32(0)) > 1 > -1 > logit(clean(0.0), jnp.int32(0))


def test_returns_to_go_are_discounted_sums_to_the_end_of_the_episode():
    e = episodes(0, 0, count=2, length=5)
    to_go = d.with_returns(e, 0.5).observations[:, -1]
    want = [sum(0.5**k for k in range(left)) for left in (5, 4, 3, 2, 1)]
    np.testing.assert_allclose(to_go, want * 2)


def test_the_value_network_learns_returns(setting):
    config, model = setting
    network = build_scalar(config.value)
    e = d.with_returns(episodes(0, 0), 1.0)
    # The first observation tells what is to come; the condition shows it clean.
    e.observations[:, 0] = (e.observations[:, -1] - 10) / 5
    normaliser = d.Normaliser(
        np.zeros(15, np.float32), np.append(np.ones(14), 5.0).astype(np.float32)
    )
    task = baselines.value_task(model, network, 64)
    _, metrics = fit(task, windows(e, normaliser), steps=250)
    assert metrics["r2"] > 0.8
