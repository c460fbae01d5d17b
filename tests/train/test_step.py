import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffreward.train import Numerics, TrainState, init_state, make_train_step
from tests.train import toy


def fresh(tx, params):
    return TrainState(jnp.zeros((), jnp.int32), params, params, tx.init(params))


def linear_loss(params, frozen, key, batch):
    del key
    error = batch @ params - frozen
    return jnp.mean(jnp.square(error)), {}


def test_updates_and_average_follow_a_numpy_loop(key):
    x = np.asarray(jax.random.normal(key, (6, 3)))
    target = np.arange(6, dtype=np.float32)
    rate, ema_decay = 0.1, 0.5
    tx = optax.sgd(rate)
    step = jax.jit(make_train_step(linear_loss, tx, Numerics(ema_decay)))
    state = fresh(tx, jnp.ones(3))
    w, average = np.ones(3), np.ones(3)
    for n in range(8):
        error = x @ w - target
        gradient = 2 * x.T @ error / len(x)  # d/dw mean (x w - target)^2
        w = w - rate * gradient
        decay = min(ema_decay, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * w
        state, metrics = step(state, target, key, x)
        np.testing.assert_allclose(metrics["loss"], np.mean(error**2), rtol=1e-4)
        np.testing.assert_allclose(
            metrics["grad_norm"], np.linalg.norm(gradient), rtol=1e-4
        )
    np.testing.assert_allclose(state.params, w, rtol=1e-4)
    np.testing.assert_allclose(state.ema_params, average, rtol=1e-4)
    assert int(state.step) == 8


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulation_equals_one_batch(key, accumulate):
    x = jax.random.normal(key, (8, 3))
    frozen = jnp.zeros(())
    tx = optax.adam(1e-2)

    def update(count):
        step = make_train_step(linear_loss, tx, Numerics(0.9, count))
        return jax.jit(step)(fresh(tx, jnp.ones(3)), frozen, key, x)

    toy.assert_close(update(accumulate), update(1))


def test_slices_have_their_own_noise(key):
    """With noise drawn from the key, equal slices still see different numbers."""

    def loss(params, frozen, key, batch):
        del frozen, batch
        return params * jax.random.uniform(key), {}

    tx = optax.sgd(1.0)
    step = jax.jit(make_train_step(loss, tx, Numerics(0.0, 2)))
    _, metrics = step(fresh(tx, jnp.ones(())), None, key, jnp.zeros(4))
    draws = [jax.random.uniform(jax.random.fold_in(key, i)) for i in range(2)]
    np.testing.assert_allclose(metrics["loss"], np.mean(draws), rtol=1e-6)


def test_bfloat16_reaches_the_loss_and_not_the_state(key):
    seen = []

    def loss(params, frozen, key, batch):
        seen.append(params["out"].dtype)
        cast = lambda x: x.astype(jnp.bfloat16)
        return toy.loss(params, cast(frozen), key, cast(batch))

    tx = optax.adam(1e-3)
    state = init_state(toy.init, tx, key)
    step = make_train_step(loss, tx, Numerics(0.9, compute_dtype=jnp.bfloat16))
    after, metrics = jax.jit(step)(state, jnp.asarray(toy.FROZEN), key, toy.DATA[:8])
    assert set(seen) == {jnp.dtype(jnp.bfloat16)}
    assert [x.dtype for x in jax.tree.leaves(after)] == [
        x.dtype for x in jax.tree.leaves(state)
    ]
    full, exact = jax.jit(make_train_step(toy.loss, tx, Numerics(0.9)))(
        state, toy.FROZEN, key, toy.DATA[:8]
    )
    # bfloat16 carries 8 bits, and the noise is drawn in it.
    np.testing.assert_allclose(metrics["loss"], exact["loss"], rtol=0.2)
    assert metrics["loss"].dtype == jnp.float32
    assert jax.tree.structure(full) == jax.tree.structure(after)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_finite_flag(key, bad):
    tx = optax.sgd(0.1)
    step = jax.jit(make_train_step(linear_loss, tx, Numerics(0.9)))
    x = jnp.ones((4, 3))
    for target, finite in ((0.0, True), (bad, False)):
        _, metrics = step(fresh(tx, jnp.ones(3)), jnp.float32(target), key, x)
        assert bool(metrics["finite"]) is finite
