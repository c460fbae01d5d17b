import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.diffusion import (
    Condition,
    cosine,
    denoising_loss,
    draw_levels,
    from_eps,
    pin,
    pinned_observations,
)
from tests.reference import cosine_alpha_bar

SCHEDULE = cosine(20)


@pytest.mark.parametrize("prediction", ["x_0", "eps", "v"])
def test_loss_against_numpy(key, prediction):
    x_key, n_key, w_key = jax.random.split(key, 3)
    x_0, eps = jax.random.normal(x_key, (5, 3)), jax.random.normal(n_key, (5, 3))
    weight = jax.random.uniform(w_key, (5, 3))
    pinned = pinned_observations(5, 1, 2, steps=(0, -1))
    t = 7
    a = np.sqrt(cosine_alpha_bar(20)[t])
    s = np.sqrt(1 - a**2)
    x, n = np.asarray(x_0), np.asarray(eps)
    free = np.ones((5, 3))
    free[0, 1:] = free[4, 1:] = 0  # the observations of the first and last step
    seen = np.where(free > 0, a * x + s * n, x)
    target = {"x_0": x, "eps": n, "v": a * n - s * x}[prediction]
    expected = (np.asarray(weight) * free * (np.tanh(seen) - target) ** 2).sum()
    loss, _ = denoising_loss(
        lambda x_t, t: jnp.tanh(x_t),
        SCHEDULE,
        x_0,
        jnp.int32(t),
        eps,
        prediction=prediction,
        weight=weight,
        pinned=pinned,
    )
    np.testing.assert_allclose(loss, expected / free.sum(), rtol=1e-4)


@pytest.mark.parametrize("prediction", ["x_0", "eps", "v"])
def test_perfect_prediction_costs_nothing(key, prediction):
    x_0 = jax.random.normal(key, (4, 2))
    ones, t = jnp.ones((4, 2)), jnp.int32(4)
    predict = lambda x_t, t: from_eps(SCHEDULE, prediction, x_t, t, ones)
    loss, _ = denoising_loss(predict, SCHEDULE, x_0, t, ones, prediction=prediction)
    assert loss < 1e-9


def test_levels_are_uniform_and_stratified(key):
    keys = jax.random.split(key, 400)
    t = jax.vmap(lambda k: draw_levels(k, 64, 20))(keys)
    assert t.min() == 0
    assert t.max() == 19
    # Stratified: every batch of 64 holds each of 20 levels 3 or 4 times.
    counts = jax.vmap(lambda row: jnp.bincount(row, length=20))(t)
    assert counts.min() >= 3
    assert counts.max() <= 4
    np.testing.assert_allclose(counts.mean(0), 3.2, atol=0.1)


def test_pin_keeps_exactly_the_condition():
    pinned = pinned_observations(3, 1, 2, steps=(0,))
    values = jnp.full((3, 3), 7.0)
    got = pin(jnp.zeros((3, 3)), Condition(pinned, values))
    np.testing.assert_array_equal(got, [[0, 7, 7], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(pin(values, None), values)
