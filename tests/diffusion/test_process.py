import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffreward.diffusion import (
    ancestral_mean,
    check_prediction,
    clip_x_0,
    cosine,
    eps_of_mean,
    from_eps,
    posterior_mean,
    q_sample,
    to_eps,
)
from tests.reference import cosine_alpha_bar, posterior

SCHEDULE = cosine(20)
KINDS = ("eps", "x_0", "v", "score")
numbers = st.floats(-3, 3, width=32)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 19), numbers, numbers)
def test_every_reading_of_the_truth(t, x_0, eps):
    """Each kind equals its definition, and reads back as the noise."""
    a = np.sqrt(cosine_alpha_bar(20)[t])
    s = np.sqrt(1 - a**2)
    truth = {"eps": eps, "x_0": x_0, "v": a * eps - s * x_0, "score": -eps / s}
    x_t = q_sample(SCHEDULE, jnp.float32(x_0), jnp.int32(t), jnp.float32(eps))
    np.testing.assert_allclose(x_t, a * x_0 + s * eps, atol=1e-5)
    for kind in KINDS:
        # Dividing by sqrt(alpha_bar) = 0.0025 at the noisiest level costs digits.
        tolerance = 1e-5 + 2e-6 / a
        out = from_eps(SCHEDULE, kind, x_t, jnp.int32(t), jnp.float32(eps))
        np.testing.assert_allclose(out, truth[kind], atol=tolerance, rtol=1e-4)
        back = to_eps(SCHEDULE, kind, x_t, jnp.int32(t), jnp.float32(truth[kind]))
        np.testing.assert_allclose(back, eps, atol=tolerance, rtol=1e-4)


def test_unknown_prediction_is_named():
    with pytest.raises(ValueError, match=r"unknown prediction 'x0'.*x_0"):
        check_prediction("x0")


def test_posterior_mean_at_zero_is_x_0():
    x_0, x_t = jnp.arange(3.0), jnp.ones(3) * 9
    np.testing.assert_allclose(posterior_mean(SCHEDULE, x_0, x_t, jnp.int32(0)), x_0)


@pytest.mark.parametrize("t", [0, 3, 19])
def test_eps_of_mean_inverts_the_step(t):
    x_0, x_t = jnp.array([0.3, -1.2]), jnp.array([0.1, 0.4])
    mean, _ = posterior(cosine_alpha_bar(20), t, np.asarray(x_0), np.asarray(x_t))
    eps = eps_of_mean(SCHEDULE, jnp.asarray(mean, jnp.float32), x_t, jnp.int32(t))
    back = from_eps(SCHEDULE, "x_0", x_t, jnp.int32(t), eps)
    np.testing.assert_allclose(back, x_0, atol=1e-4)


def test_clip_bounds_the_clean_sample(key):
    t = jnp.int32(10)
    x_t = 5 * jax.random.normal(key, (7, 3))
    clipped = clip_x_0(lambda x, t: 0.1 * x, SCHEDULE, 1.0)
    x_0 = from_eps(SCHEDULE, "x_0", x_t, t, clipped(x_t, t))
    free = from_eps(SCHEDULE, "x_0", x_t, t, 0.1 * x_t)
    np.testing.assert_allclose(x_0, np.clip(free, -1, 1), atol=1e-5)


def test_an_ancestral_step_has_the_posterior_mean_of_the_clean_sample():
    x_t, t = jnp.arange(3.0), jnp.int32(7)
    eps_fn = lambda x, level: 0.3 * x + level.astype(x.dtype)
    found = ancestral_mean(eps_fn, SCHEDULE, x_t, t)
    a = cosine_alpha_bar(20)[7]
    x_0 = (np.arange(3.0) - np.sqrt(1 - a) * (0.3 * np.arange(3.0) + 7)) / np.sqrt(a)
    mean = posterior_mean(SCHEDULE, jnp.asarray(x_0, jnp.float32), x_t, t)
    np.testing.assert_allclose(found, mean, rtol=1e-4)
