import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.diffusion import cosine, from_beta, linear, linear_betas
from tests.reference import cosine_alpha_bar, posterior

# Published values (Nichol & Dhariwal's schedule): beta, alpha_bar, weights of x_0 and
# x_t in the posterior mean, posterior standard deviation.
TABLE = {
    (20, 0): (0.00799, 0.992007, 1.0, 0.0, 0.0),
    (20, 1): (0.02007, 0.972093, 0.7165, 0.2835, 0.0758),
    (20, 10): (0.15700, 0.416312, 0.1890, 0.7962, 0.3690),
    (20, 19): (0.99900, 6.06e-6, 0.0778, 0.0314, 0.9965),
    (100, 1): (0.00112, 0.998252, 0.6390, 0.3610, 0.0201),
    (100, 50): (0.03155, 0.478265, 0.0425, 0.9547, 0.1749),
    (100, 99): (0.99900, 2.4e-7, 0.0156, 0.0316, 0.9994),
}


@pytest.mark.parametrize(("where", "row"), TABLE.items())
def test_published_values(where, row):
    num_steps, t = where
    s = cosine(num_steps)
    got = [
        s.beta[t],
        s.alpha_bar[t],
        s.posterior_x_0[t],
        s.posterior_x_t[t],
        jnp.sqrt(s.posterior_variance[t]),
    ]
    np.testing.assert_allclose(got, row, atol=6e-5, rtol=1e-2)


@pytest.mark.parametrize("num_steps", [20, 50, 100, 256])
def test_cosine_against_numpy(num_steps):
    s = cosine(num_steps)
    expected = cosine_alpha_bar(num_steps)
    np.testing.assert_allclose(s.alpha_bar, expected, atol=1e-6, rtol=1e-6)
    np.testing.assert_allclose(s.sigma, np.sqrt(1 - expected), rtol=1e-6)
    np.testing.assert_allclose(s.snr, expected / (1 - expected), rtol=1e-6)


def test_posterior_against_bayes():
    s, alpha_bar = cosine(20), cosine_alpha_bar(20)
    for t in range(20):
        mean, variance = posterior(alpha_bar, t, 0.7, -0.4)
        got = s.posterior_x_0[t] * 0.7 + s.posterior_x_t[t] * -0.4
        np.testing.assert_allclose(got, mean, atol=1e-5)
        np.testing.assert_allclose(s.posterior_variance[t], variance, atol=1e-5)


def test_linear_ends_scale_with_length():
    np.testing.assert_allclose(linear(1000).beta[jnp.array([0, -1])], [1e-4, 0.02])
    np.testing.assert_allclose(linear(100).beta[jnp.array([0, -1])], [1e-3, 0.2])


def test_linear_betas_are_what_checkpoints_have():
    """torch.linspace(1e-4, 0.02, 50) of most of them, which linear(50) is not."""
    s = linear_betas(50)
    np.testing.assert_allclose(s.beta, np.linspace(1e-4, 0.02, 50), rtol=1e-6)
    np.testing.assert_allclose(linear(50).beta, 20 * s.beta, rtol=1e-5)
    np.testing.assert_array_equal(linear_betas(1000).beta, linear(1000).beta)


def test_chains_that_stop_before_noise_say_so():
    assert linear_betas(50).signal_left == pytest.approx(1.5, abs=0.1)
    for whole in (cosine(5), linear(50), linear(1000), linear_betas(500)):
        assert whole.signal_left is None
    seen = []
    jax.jit(lambda s: seen.append(s.signal_left))(linear_betas(50))
    assert seen == [None]  # traced: nobody can tell


@pytest.mark.parametrize("beta", [[], [0.1, 1.0], [0.0], [[0.1]], [np.nan]])
def test_bad_beta_is_refused(beta):
    with pytest.raises(ValueError, match=r"beta must be a non-empty vector in \(0, 1\)"):
        from_beta(np.asarray(beta))
