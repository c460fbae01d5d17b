"""Laws whose diffused score is known exactly: the oracle of the repository.

A law is diffused by x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) noise; every
function takes ``alpha_bar`` itself, so the laws need no schedule. Samples may have any
shape; they are flattened to the law's dimension.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from diffreward.types import PRNGKey


class Mixture(NamedTuple):
    """A Gaussian mixture; one component is a plain Gaussian."""

    log_weights: Float[Array, " components"]
    means: Float[Array, "components dim"]
    covariances: Float[Array, "components dim dim"]


def gaussian(
    mean: Float[Array, " dim"], covariance: Float[Array, "dim dim"]
) -> Mixture:
    """A single Gaussian as a mixture of one."""
    return Mixture(jnp.zeros(1), mean[None], covariance[None])


def linear_gaussian_trajectories(
    transition: Float[Array, "dim dim"],
    drift: Float[Array, " dim"],
    noise_std: float,
    horizon: int,
) -> Mixture:
    """Law of s_{k+1} = A s_k + b + noise from s_0 ~ N(0, I), flattened over time."""
    dim = drift.shape[0]
    mean, cov = jnp.zeros(dim), jnp.eye(dim)
    means, lifts = [mean], [jnp.eye(dim, horizon * dim)]
    for k in range(1, horizon):
        noise = noise_std * jnp.eye(dim, horizon * dim, k=k * dim)
        mean = transition @ mean + drift
        means.append(mean)
        lifts.append(transition @ lifts[-1] + noise)
    lift = jnp.concatenate(lifts)
    cov = lift @ lift.T
    return gaussian(jnp.concatenate(means), cov)


def log_density(
    law: Mixture, x_t: Float[Array, "..."], alpha_bar: Float[Array, ""]
) -> Float[Array, ""]:
    """Log density of the diffused law at ``x_t``."""
    x = x_t.reshape(-1)
    eye = jnp.eye(x.size)

    def component(log_weight: Array, mean: Array, covariance: Array) -> Array:
        total = alpha_bar * covariance + (1 - alpha_bar) * eye
        chol = jnp.linalg.cholesky(total)
        residual = jax.scipy.linalg.solve_triangular(
            chol, x - jnp.sqrt(alpha_bar) * mean, lower=True
        )
        log_det = 2 * jnp.log(jnp.diagonal(chol)).sum()
        constant = x.size * jnp.log(2 * jnp.pi)
        return log_weight - 0.5 * (residual @ residual + log_det + constant)

    return logsumexp(jax.vmap(component)(*law)) - logsumexp(law.log_weights)


def eps(
    law: Mixture, x_t: Float[Array, "..."], alpha_bar: Float[Array, ""]
) -> Float[Array, "..."]:
    """Exact noise prediction, -sqrt(1 - alpha_bar) times the score."""
    return -jnp.sqrt(1 - alpha_bar) * jax.grad(log_density, 1)(law, x_t, alpha_bar)


def sample(law: Mixture, key: PRNGKey) -> Float[Array, " dim"]:
    """One clean sample."""
    pick_key, noise_key = jax.random.split(key)
    k = jax.random.categorical(pick_key, law.log_weights)
    noise = jax.random.normal(noise_key, law.means.shape[1:])
    return law.means[k] + jnp.linalg.cholesky(law.covariances[k]) @ noise
