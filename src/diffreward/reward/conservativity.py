"""How much of a relative score is a gradient at all?

A reward explains the difference of two models only where that difference is a gradient
field. The Jacobian of a gradient field is symmetric; its antisymmetric part is what no
reward of any kind can produce. This tells a poor reward (little explained, little curl)
from a pair that has none (little explained, much curl).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffreward.diffusion import Condition, pin, q_sample
from diffreward.reward.metrics import variance_by_level
from diffreward.reward.pair import Pair, relative_score
from diffreward.types import Mask, PRNGKey, RewardFn, Sample, Scalar


class Conservativity(NamedTuple):
    """Per level, what speaks for and against a reward behind a pair."""

    curl: Float[Array, " num_steps"]
    """Share of the Jacobian's squared norm that is antisymmetric, in [0, 1]."""
    explained: Float[Array, " num_steps"] | None
    """Share of the relative score that a given reward explains, 1 - FVU."""


def curl_probe(
    field: Callable[[Array], Array],
    key: PRNGKey,
    x: Sample,
    *,
    free: Mask | None = None,
    num_probes: int = 1,
) -> tuple[Scalar, Scalar]:
    """Squared norms of the antisymmetric part of a Jacobian, and of all of it.

    Hutchinson's estimate: ``||A||_F^2 = E ||A v||^2`` for random signs v, with
    ``2 A v = J v - J^T v`` from one product from each side; likewise the symmetric part,
    whose square adds to the total. Both numbers are unbiased and the first is never the
    larger; take means over samples before their ratio.

    Args:
        field: function of a sample to an array of its shape.
        key: key of the random signs.
        x: where the Jacobian is taken.
        free: entries that count; rows and columns of the others are left out.
        num_probes: vectors averaged.

    Returns:
        ``||(J - J^T) / 2||_F^2`` and ``||J||_F^2``.
    """
    counted = jnp.ones(x.shape) if free is None else free.astype(x.dtype)
    _, push = jax.linearize(field, x)
    _, pull = jax.vjp(field, x)

    def probe(key: Array) -> tuple[Array, Array]:
        v = counted * jax.random.rademacher(key, x.shape, x.dtype)
        forward, backward = counted * push(v), counted * pull(v)[0]
        curl = jnp.sum(jnp.square((forward - backward) / 2))
        return curl, curl + jnp.sum(jnp.square((forward + backward) / 2))

    parts = jax.vmap(probe)(jax.random.split(key, num_probes))
    return parts[0].mean(), parts[1].mean()


def curl_by_level(
    pair: Pair,
    key: PRNGKey,
    x_0: Sample,
    *,
    pinned: Mask | None = None,
    mask: Mask | None = None,
    num_probes: int = 1,
) -> tuple[Float[Array, " num_steps"], Float[Array, " num_steps"]]:
    """Antisymmetric and total squared norm of the relative score's Jacobian, per level.

    Args:
        pair: the two models.
        key: key of the noises and probes.
        x_0: clean sample, noised once per level.
        pinned: conditioned entries; they do not count.
        mask: entries that count (True) beside the pinned ones; all by default.
        num_probes: random vectors per level.
    """
    condition = None if pinned is None else Condition(pinned, x_0)
    free = jnp.ones(x_0.shape, bool) if mask is None else mask
    if pinned is not None:
        free = free & ~pinned

    def level(t: Array, key: Array) -> tuple[Array, Array]:
        noise_key, probe_key = jax.random.split(key)
        eps = jax.random.normal(noise_key, x_0.shape)
        x_t = pin(q_sample(pair.schedule, x_0, t, eps), condition)
        field = lambda x: relative_score(pair, x, t)
        return curl_probe(field, probe_key, x_t, free=free, num_probes=num_probes)

    levels = jnp.arange(pair.schedule.num_steps)
    return jax.vmap(level)(levels, jax.random.split(key, levels.size))


def conservativity(
    pair: Pair,
    key: PRNGKey,
    x_0: Float[Array, "samples ..."],
    *,
    reward_fn: RewardFn | None = None,
    pinned: Mask | None = None,
    mask: Mask | None = None,
    num_probes: int = 1,
) -> Conservativity:
    """Conservativity report of a pair over a batch of held-out samples.

    ``curl`` is 0 for an exact pair and 1/2 for a Jacobian without any symmetry (that of
    a random matrix); it weighs fine structure more than ``explained`` does, so the two
    shares need not add to one. Both are NaN at a level where the models agree exactly.

    Args:
        pair: the two models.
        key: key of the noises and probes.
        x_0: clean samples.
        reward_fn: a reward whose explained share is wanted as well.
        pinned: conditioned entries, the same for all samples; they do not count.
        mask: entries that count (True) beside the pinned ones; all by default.
        num_probes: random vectors per sample and level.
    """
    curl_key, noise_key = jax.random.split(key)

    def curl(key: Array, x: Array) -> tuple[Array, Array]:
        return curl_by_level(pair, key, x, pinned=pinned, mask=mask, num_probes=num_probes)

    part, total = jax.vmap(curl)(jax.random.split(curl_key, len(x_0)), x_0)
    share = part.mean(0) / total.mean(0)
    if reward_fn is None:
        return Conservativity(share, None)

    def variance(key: Array, x: Array) -> tuple[Array, Array]:
        return variance_by_level(reward_fn, pair, key, x, pinned=pinned, mask=mask)

    residual, signal = jax.vmap(variance)(jax.random.split(noise_key, len(x_0)), x_0)
    return Conservativity(share, 1 - residual.mean(0) / signal.mean(0))
