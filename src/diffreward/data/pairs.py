"""Pairs of laws whose relative reward is known: what extractors are judged by."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffreward.data import laws
from diffreward.data.episodes import Episodes
from diffreward.names import choose
from diffreward.types import PRNGKey, Sample, Scalar
from diffreward.weights import effective_sample_size


class KnownPair(NamedTuple):
    """A base and an expert law, with samples of one shape."""

    name: str
    base: laws.Mixture
    expert: laws.Mixture
    shape: tuple[int, ...]

    def reward(self, x_t: Sample, alpha_bar: Scalar) -> Scalar:
        """Exact relative reward in nats: the log ratio of the diffused densities."""
        expert = laws.log_density(self.expert, x_t, alpha_bar)
        return expert - laws.log_density(self.base, x_t, alpha_bar)

    def sample(self, role: str, key: PRNGKey, count: int) -> Float[Array, "count ..."]:
        """Clean samples of the ``base`` or the ``expert``.

        Raises:
            ValueError: for another role.
        """
        choose("role", role, ("base", "expert"))
        law = self.base if role == "base" else self.expert
        draw = lambda k: laws.sample(law, k).reshape(self.shape)
        return jax.vmap(draw)(jax.random.split(key, count))


class Tilt(NamedTuple):
    """R(x) = slope . x - (x - centre)' curvature (x - centre) / 2, any part of it zero."""

    slope: Float[Array, " dim"]
    curvature: Float[Array, "dim dim"]
    centre: Float[Array, " dim"]

    def __call__(self, x: Sample) -> Scalar:
        """The clean reward of one sample."""
        x = x.reshape(-1)
        off = x - self.centre
        return self.slope @ x - off @ self.curvature @ off / 2


def tilt(law: laws.Mixture, reward: Tilt, beta: float) -> laws.Mixture:
    """The law proportional to ``law * exp(reward / beta)``, exactly.

    Every component stays a Gaussian: precisions add up, and its weight is multiplied
    with the mean of exp(reward / beta) under it.

    Raises:
        ValueError: if beta is not positive, or the tilted law has no finite mass.
    """
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}")
    covariances = np.asarray(law.covariances, np.float64)
    slope, curvature, centre = (np.asarray(p, np.float64) / beta for p in reward)
    centre = centre * beta
    log_weights, means, covs = [], [], []
    for log_weight, mean, cov in zip(law.log_weights, law.means, covariances, strict=True):
        mean = np.asarray(mean, np.float64)
        prior = np.linalg.inv(cov)
        precision = prior + curvature
        if np.linalg.eigvalsh(precision).min() <= 0:
            raise ValueError("the tilted law has no finite mass; raise beta")
        linear = prior @ mean + slope + curvature @ centre
        new_mean = np.linalg.solve(precision, linear)
        log_mass = (
            linear @ new_mean - mean @ prior @ mean - centre @ curvature @ centre
        ) / 2 - (np.linalg.slogdet(precision)[1] - np.linalg.slogdet(prior)[1]) / 2
        log_weights.append(float(log_weight) + log_mass)
        means.append(new_mean)
        covs.append(np.linalg.inv(precision))
    weights = np.exp(np.array(log_weights) - max(log_weights))
    return laws.mixture(*(jnp.asarray(p, jnp.float32) for p in (weights, means, covs)))


class Resampled(NamedTuple):
    """Rows drawn from data in proportion to exp(reward / beta)."""

    rows: Int[np.ndarray, " count"]
    effective: float
    """Effective number of rows, 1 / sum of squared weights (Kong, 1992)."""


def tilt_rows(
    rewards: Float[np.ndarray, " rows"], beta: float, count: int, seed: int
) -> Resampled:
    """Data of an expert with a known clean reward: rows of the base, resampled.

    Whatever the law of the rows, theirs is the base's times exp(reward / beta), so the
    clean relative reward is reward / beta up to a constant (importance resampling).

    Raises:
        ValueError: if beta is not positive, or a handful of rows gets all the weight.
    """
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}")
    logits = np.asarray(rewards, np.float64) / beta
    weights = np.exp(logits - logits.max())
    weights /= weights.sum()
    effective = effective_sample_size(logits)
    if effective < min(50, len(weights) / 4):
        raise ValueError(
            f"only {effective:.0f} of {len(weights)} rows carry the weight at "
            f"beta={beta}; raise beta or bring more rows"
        )
    rows = np.random.default_rng(seed).choice(len(weights), count, p=weights)
    return Resampled(rows, effective)


def episode_windows(
    episodes: Episodes, horizon: int, columns: slice, spacing: int = 1
) -> Float[np.ndarray, "windows horizon dim"]:
    """Windows of some observation columns that lie inside one episode.

    Their starts are ``spacing`` rows apart.

    Raises:
        ValueError: if no episode is as long as the horizon.
    """
    starts = [
        np.arange(start, start + length - horizon + 1, spacing)
        for start, length in zip(episodes.starts, episodes.lengths, strict=True)
    ]
    first = np.concatenate(starts)
    if not len(first):
        raise ValueError(
            f"{episodes.source}: no episode has {horizon} steps; shorten the horizon"
        )
    return episodes.observations[first[:, None] + np.arange(horizon), columns]


def known_pairs() -> dict[str, KnownPair]:
    """The closed-form pairs of the benchmark, by name; asymmetric on purpose."""
    return {name: KnownPair(name, *make()) for name, make in _PAIRS.items()}


TILTS = {
    "tilted_linear": (jnp.array([1.5, -1.0]), jnp.zeros((2, 2)), jnp.zeros(2)),
    "tilted_quadratic": (jnp.zeros(2), jnp.array([[2.0, 0.5], [0.5, 1.0]]), jnp.ones(2)),
}


def known_tilt(name: str) -> Tilt:
    """Clean reward R of a tilted pair; its temperature is 1.

    Raises:
        ValueError: for a pair that is not a tilt.
    """
    return Tilt(*TILTS[choose("tilt", name, TILTS)])


def _gaussians(base_cov: Array, expert_cov: Array) -> tuple:
    means = jnp.array([1.0, -2.0]), jnp.array([-1.5, 0.5])
    return laws.gaussian(means[0], base_cov), laws.gaussian(means[1], expert_cov), (2,)


def _three_modes() -> laws.Mixture:
    return laws.mixture(
        jnp.array([0.5, 0.3, 0.2]),
        jnp.array([[1.0, 1.0], [-1.0, 0.2], [0.5, -1.2]]),
        jnp.stack([0.2 * jnp.eye(2), jnp.diag(jnp.array([0.15, 0.4])), 0.3 * jnp.eye(2)]),
    )


def _mixtures() -> tuple:
    expert = laws.mixture(
        jnp.array([0.3, 0.7]),
        jnp.array([[0.8, -0.6], [-0.7, 0.9]]),
        jnp.stack([jnp.diag(jnp.array([0.3, 0.2])), 0.25 * jnp.eye(2)]),
    )
    return _three_modes(), expert, (2,)


def _trajectories() -> tuple:
    turn = jnp.array([[0.8, 0.3], [-0.3, 0.8]])
    return (
        laws.linear_gaussian_trajectories(0.9 * jnp.eye(2), jnp.zeros(2), 0.5, 3),
        laws.linear_gaussian_trajectories(turn, jnp.array([0.4, -0.2]), 0.4, 3),
        (3, 2),
    )


def _tilted(name: str) -> tuple:
    base = _three_modes()
    return base, tilt(base, known_tilt(name), 1.0), (2,)


_EQUAL = ((0.8, 0.3), (0.3, 0.5))
_OTHER = ((0.4, -0.1), (-0.1, 0.9))
_PAIRS: dict[str, Callable[[], tuple]] = {
    "gaussians_equal_cov": lambda: _gaussians(jnp.array(_EQUAL), jnp.array(_EQUAL)),
    "gaussians": lambda: _gaussians(jnp.array(_EQUAL), jnp.array(_OTHER)),
    "mixtures": _mixtures,
    "trajectories": _trajectories,
    "tilted_linear": lambda: _tilted("tilted_linear"),
    "tilted_quadratic": lambda: _tilted("tilted_quadratic"),
}
