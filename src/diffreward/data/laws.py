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
    """A Gaussian mixture; one component is a plain Gaussian.

    Covariances are kept as axes and variances, in which adding noise is adding a number.
    """

    log_weights: Float[Array, " components"]
    means: Float[Array, "components dim"]
    axes: Float[Array, "components dim dim"]
    """Orthonormal principal axes, one per column."""
    variances: Float[Array, "components dim"]

    @property
    def covariances(self) -> Float[Array, "components dim dim"]:
        """Covariance of every component."""
        scaled = self.axes * self.variances[:, None, :]
        return scaled @ self.axes.swapaxes(1, 2)


def mixture(
    weights: Float[Array, " components"],
    means: Float[Array, "components dim"],
    covariances: Float[Array, "components dim dim"],
) -> Mixture:
    """A mixture; ``weights`` are positive and need not sum to one."""
    variances, axes = jnp.linalg.eigh(covariances)
    return Mixture(jnp.log(weights / weights.sum()), means, axes, variances)


def gaussian(mean: Float[Array, " dim"], covariance: Float[Array, "dim dim"]) -> Mixture:
    """A single Gaussian as a mixture of one."""
    return mixture(jnp.ones(1), mean[None], covariance[None])


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

    def component(log_weight: Array, mean: Array, axes: Array, variance: Array) -> Array:
        total = alpha_bar * variance + (1 - alpha_bar)
        along = axes.T @ (x - jnp.sqrt(alpha_bar) * mean)
        terms = jnp.square(along) / total + jnp.log(2 * jnp.pi * total)
        return log_weight - 0.5 * terms.sum()

    return logsumexp(jax.vmap(component)(*law))


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
    return law.means[k] + law.axes[k] @ (jnp.sqrt(law.variances[k]) * noise)
