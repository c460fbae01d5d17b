import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffreward.train import learning_rate_schedule, make_optimiser
from tests.train import toy


def update(tx, grads, state, params):
    # optax raises a float to the power of its int32 counter.
    with jax.numpy_dtype_promotion("standard"):
        return tx.update(grads, state, params)


def test_schedule_against_numpy():
    rate = learning_rate_schedule(2.0, steps=20, warmup=5, schedule="cosine")
    n = np.arange(20)
    expected = np.where(n < 5, 2.0 * (n + 1) / 5, 1 + np.cos(np.pi * (n - 5) / 15))
    np.testing.assert_allclose(np.array([rate(i) for i in n]), expected, rtol=1e-5)
    stable = learning_rate_schedule(2.0, steps=20, warmup=5, schedule="wsd")
    expected = 2.0 * np.minimum((n + 1) / 5, 1) * np.minimum((20 - n) / 4, 1)
    np.testing.assert_allclose(np.array([stable(i) for i in n]), expected, rtol=1e-5)
    constant = learning_rate_schedule(2.0, steps=20, warmup=5)
    assert np.asarray(constant(19)) == 2.0


def test_adamw_against_numpy():
    b1, b2, eps, rate, decay, limit = 0.8, 0.9, 1e-3, 0.1, 0.2, 1.5
    tx = make_optimiser(
        rate, steps=9, clip_norm=limit, weight_decay=decay, b1=b1, b2=b2, eps=eps
    )
    rng = np.random.default_rng(0)
    w, b = rng.normal(size=(2, 3)), rng.normal(size=3)
    params = {"w": jnp.float32(w), "b": jnp.float32(b)}
    state = tx.init(params)
    moments = {"w": (0 * w, 0 * w), "b": (0 * b, 0 * b)}
    expected = {"w": w, "b": b}
    for n in range(1, 5):
        grads = {"w": rng.normal(size=(2, 3)), "b": rng.normal(size=3)}
        updates, state = update(
            tx, {k: jnp.float32(g) for k, g in grads.items()}, state, params
        )
        params = optax.apply_updates(params, updates)
        norm = np.sqrt(sum(np.sum(g**2) for g in grads.values()))
        for k, gradient in grads.items():
            g = gradient * min(1.0, limit / norm)
            m, v = moments[k]
            moments[k] = (b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2)
            m, v = moments[k]
            step = (m / (1 - b1**n)) / (np.sqrt(v / (1 - b2**n)) + eps)
            shrink = decay * expected[k] if k == "w" else 0.0
            expected[k] = expected[k] - rate * (step + shrink)
    toy.assert_close(params, expected)


def test_l2_is_added_to_the_gradient_and_weights_stay_within_their_limit():
    tx = make_optimiser(
        1.0, steps=1, clip_value=0.5, clip_weights=1.0, l2=0.1, b1=0.0, b2=0.0, eps=1.0
    )
    params = jnp.array([0.5, -0.9, 3.0, 0.0])
    gradient = jnp.array([4.0, 4.0, 0.0, 0.1])
    updates, _ = update(tx, gradient, tx.init(params), params)
    # d/dw of l2 w^2 is 2 l2 w, beside the gradient that was clipped before.
    whole = np.clip(gradient, -0.5, 0.5) + 0.2 * np.asarray(params)
    wanted = np.asarray(params) - whole / (np.abs(whole) + 1)
    assert wanted[1] < -1  # both are held at their limits
    assert wanted[2] > 1
    found = np.asarray(params + updates)
    np.testing.assert_allclose(found, np.clip(wanted, -1, 1), rtol=1e-6)


def test_clip_value_is_entrywise():
    # With b1 = b2 = 0 and a large eps, Adam's update is -rate * g / (|g| + eps).
    tx = make_optimiser(1.0, steps=1, clip_value=0.5, b1=0.0, b2=0.0, eps=1.0)
    params = jnp.zeros(3)
    updates, _ = update(tx, jnp.array([4.0, -4.0, 0.25]), tx.init(params), params)
    np.testing.assert_allclose(np.asarray(updates), [-1 / 3, 1 / 3, -0.2], rtol=1e-6)


def test_unknown_schedule_names_the_nearest():
    with pytest.raises(ValueError, match="unknown schedule 'cosin'.*'cosine'"):
        make_optimiser(1.0, steps=5, schedule="cosin")


def test_warmup_must_fit_the_run():
    with pytest.raises(ValueError, match="warmup of 5 does not fit a run of 5 steps"):
        make_optimiser(1.0, steps=5, warmup=5)
