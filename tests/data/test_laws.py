import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import multivariate_normal

from diffreward.data import laws
from tests.reference import gaussian_score

MEAN = np.array([1.0, -2.0])
COV = np.array([[0.5, 0.2], [0.2, 0.3]])


def law():
    return laws.gaussian(jnp.asarray(MEAN, jnp.float32), jnp.asarray(COV, jnp.float32))


def test_eps_is_the_score_of_the_diffused_gaussian():
    x = np.array([0.3, 0.9])
    for alpha_bar in (0.9, 0.3, 0.01):
        got = laws.eps(law(), jnp.asarray(x, jnp.float32), jnp.float32(alpha_bar))
        expected = -np.sqrt(1 - alpha_bar) * gaussian_score(MEAN, COV, alpha_bar, x)
        np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_mixture_density_against_scipy():
    means = np.array([[1.0, 0.0], [-1.0, 2.0]])
    covs = np.stack([COV, np.eye(2)])
    law = laws.mixture(
        jnp.array([2.0, 6.0]),  # unnormalised on purpose
        jnp.asarray(means, jnp.float32),
        jnp.asarray(covs, jnp.float32),
    )
    x, ab = np.array([0.2, 0.7]), 0.6
    density = sum(
        w * multivariate_normal(np.sqrt(ab) * m, ab * c + (1 - ab) * np.eye(2)).pdf(x)
        for w, m, c in zip((0.25, 0.75), means, covs, strict=True)
    )
    got = laws.log_density(law, jnp.asarray(x, jnp.float32), jnp.float32(ab))
    np.testing.assert_allclose(got, np.log(density), rtol=1e-5)


def test_linear_gaussian_trajectories_against_simulation():
    A, b = np.array([[0.9, 0.2], [-0.1, 0.8]]), np.array([0.3, -0.5])
    rng = np.random.default_rng(0)
    s = rng.standard_normal((40000, 2))
    track = [s]
    for _ in range(3):
        s = s @ A.T + b + 0.4 * rng.standard_normal(s.shape)
        track.append(s)
    track = np.concatenate(track, 1)
    built = laws.linear_gaussian_trajectories(
        jnp.asarray(A, jnp.float32), jnp.asarray(b, jnp.float32), 0.4, 4
    )
    np.testing.assert_allclose(built.means[0], track.mean(0), atol=0.03)
    np.testing.assert_allclose(built.covariances[0], np.cov(track.T), atol=0.06)


def test_samples_have_their_moments(key):
    x = jax.vmap(lambda k: laws.sample(law(), k))(jax.random.split(key, 20000))
    np.testing.assert_allclose(x.mean(0), MEAN, atol=0.03)
    np.testing.assert_allclose(np.cov(x.T), COV, atol=0.03)
