"""What rewards are compared with: losses by hand, and their minima on Gaussians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.learn import classification, noise, noise_at, preference, regression
from tests.learn.toy import SCHEDULE, normals
from tests.reward.oracle import UNIT_BASE, UNIT_EXPERT, exact_reward

W = jnp.array([0.7, -0.4])


def linear(x, t):
    return x @ W + 0.1 * t.astype(jnp.float32)


def values(x_t, t):
    return np.asarray(x_t, np.float64) @ np.asarray(W) + 0.1 * np.asarray(t)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_classification_is_cross_entropy_with_the_expert_second(key):
    x_0 = normals(1, 10, 2)
    found, metrics = classification(linear, SCHEDULE, key, x_0)
    x_t, t, _ = noise(SCHEDULE, key, x_0)
    p = sigmoid(values(x_t, t))
    wanted = -np.concatenate([np.log(1 - p[:5]), np.log(p[5:])]).mean()
    assert float(found) == pytest.approx(wanted, rel=1e-5)
    right = np.concatenate([p[:5] < 0.5, p[5:] > 0.5]).mean()
    assert float(metrics["accuracy"]) == pytest.approx(right)


def test_preference_is_bradley_terry_at_one_level(key):
    preferred, other = normals(2, 10, 2), normals(3, 10, 2)
    found, metrics = preference(linear, SCHEDULE, key, preferred, other)
    x_t, t, _ = noise(SCHEDULE, key, preferred)
    eps = jax.random.normal(jax.random.fold_in(key, 1), x_t.shape)
    worse = noise_at(SCHEDULE, other, t, eps)
    margin = values(x_t, t) - values(worse, t)
    assert float(found) == pytest.approx(-np.log(sigmoid(margin)).mean(), rel=1e-5)
    assert float(metrics["accuracy"]) == pytest.approx((margin > 0).mean())


def test_regression_is_a_squared_error(key):
    x_0, target = normals(4, 10, 2), normals(5, 10)
    found, metrics = regression(linear, SCHEDULE, key, x_0, target)
    x_t, t, _ = noise(SCHEDULE, key, x_0)
    wanted = np.square(values(x_t, t) - np.asarray(target)).mean()
    assert float(found) == pytest.approx(wanted, rel=1e-5)
    spread = np.var(np.asarray(target))
    assert float(metrics["r2"]) == pytest.approx(1 - wanted / spread, rel=1e-4)


def slope_at(loss):
    """Derivative of a loss in a factor of the true value, at 1: zero at its minimum."""
    return float(jax.grad(loss)(jnp.float32(1.0)))


def test_the_log_ratio_is_the_minimum_of_classification(key):
    draw = lambda law, seed: normals(seed, 4096, 2) + law.means
    x_0 = jnp.concatenate([draw(UNIT_BASE, 6), draw(UNIT_EXPERT, 7)])
    rho = exact_reward(UNIT_BASE, UNIT_EXPERT, SCHEDULE)

    def loss(factor):
        return classification(lambda x, t: factor * rho(x, t), SCHEDULE, key, x_0)[0]

    best = float(loss(jnp.float32(1.0)))
    assert abs(slope_at(loss)) < 0.01
    assert all(float(loss(jnp.float32(f))) > best + 0.01 for f in (-1.0, 0.3, 3.0))


def test_the_clean_return_is_the_minimum_of_preferences(key):
    """Labels of Bradley & Terry for the return <w, x>, at the least noise alone."""
    clean = SCHEDULE._replace(
        **{n: jnp.asarray(v)[:1] for n, v in SCHEDULE._asdict().items()}
    )
    x, y = normals(8, 4096, 2), normals(9, 4096, 2)
    odds = sigmoid(3 * np.asarray((x - y) @ W))
    first = jnp.asarray(np.random.default_rng(10).random(4096) < odds)[:, None]
    better, worse = jnp.where(first, x, y), jnp.where(first, y, x)

    def loss(factor):
        value = lambda x, t: 3 * factor * x @ W
        return preference(value, clean, key, better, worse)[0]

    best = float(loss(jnp.float32(1.0)))
    assert abs(slope_at(loss)) < 0.05
    assert all(float(loss(jnp.float32(f))) > best + 0.01 for f in (-1.0, 0.3, 3.0))


def test_the_mean_return_behind_x_t_is_the_minimum_of_regression(key):
    """Of x_0 ~ N(0, 1): E[<w, x_0> | x_t] = sqrt(alpha_bar) <w, x_t>."""
    x_0 = normals(11, 8192, 2)

    def loss(factor):
        value = lambda x, t: factor * SCHEDULE.sqrt_alpha_bar[t] * (x @ W)
        return regression(value, SCHEDULE, key, x_0, x_0 @ W)[0]

    best = float(loss(jnp.float32(1.0)))
    assert abs(slope_at(loss)) < 0.03
    assert all(float(loss(jnp.float32(f))) > best + 0.01 for f in (-1.0, 0.5, 1.5))
