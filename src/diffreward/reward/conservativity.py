"""How much of a relative score is a gradient at all?

What no reward explains of a relative score h is the residual of its projection onto
gradients in L2(p_t), p_t being the law of the noised samples. Two measures stand here.

``curl``: the antisymmetric share of the Jacobian of h. It is 0 for a gradient field and
says where h is none, but it is no share of h: for h = A x with a rotation A and data of
variances 1 and 100 it is 1, and a reward explains 0.96 of h.

``unexplainable``: a lower bound on the share of h that no reward explains. For a constant
antisymmetric B the field B grad log p has no divergence under p, so that it is orthogonal
to every gradient: E <grad rho, B grad log p> = 0 by parts. Then no reward explains
``E<h, B grad log p>^2 / E|B grad log p|^2`` of E|h|^2, and the best B is that of a Lyapunov
equation. It is the whole residual for affine h of Gaussian samples; else a part of it.
1 - explained, of any reward, is the bound from above.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffreward.diffusion import free_entries, hold, pin, q_sample
from diffreward.reward.metrics import variance_by_level
from diffreward.reward.pair import Pair, relative_score
from diffreward.types import Mask, PRNGKey, RewardFn, Sample, Scalar


class Conservativity(NamedTuple):
    """Per level, what speaks for and against a reward behind a pair."""

    curl: Float[Array, " num_steps"]
    """Share of the Jacobian's squared norm that is antisymmetric, in [0, 1]."""
    unexplainable: Float[Array, " num_steps"]
    """Lower bound on the share of the relative score that no reward explains."""
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
    pair.check_pinned(pinned)
    condition = hold(pinned, x_0)
    free = free_entries(x_0.shape, pinned, mask)

    def level(t: Array, key: Array) -> tuple[Array, Array]:
        noise_key, probe_key = jax.random.split(key)
        eps = jax.random.normal(noise_key, x_0.shape)
        x_t = pin(q_sample(pair.schedule, x_0, t, eps), condition)
        field = lambda x: relative_score(pair, x, t)
        return curl_probe(field, probe_key, x_t, free=free, num_probes=num_probes)

    levels = jnp.arange(pair.schedule.num_steps)
    return jax.vmap(level)(levels, jax.random.split(key, levels.size))


def unexplainable_by_level(
    pair: Pair,
    key: PRNGKey,
    x_0: Float[Array, "samples ..."],
    *,
    pinned: Mask | None = None,
    mask: Mask | None = None,
) -> Float[Array, " num_steps"]:
    """Lower bound on the share of the relative score that no reward explains, per level.

    The base is taken to know the samples: E|B grad log p|^2 is that of its score.
    E<h, B grad log p> needs no model, as grad log p is the mean of -eps / sigma. B is
    fitted on one half of the samples and held against the other, and the reverse; two
    standard errors are taken off, samples being independent, so that chance does not look
    like a rotation. Few samples of many entries therefore give 0, which says nothing.

    Args:
        pair: the two models.
        key: key of the noises.
        x_0: clean samples of the base, at least four.
        pinned: conditioned entries, the same for all samples; they do not count.
        mask: entries that count (True) beside the pinned ones; all by default.

    Raises:
        ValueError: for fewer than four samples.
    """
    if len(x_0) < 4:
        raise ValueError(
            f"a bound on what no reward explains needs 4 samples, got {len(x_0)}"
        )
    pair.check_pinned(pinned)
    shape = x_0.shape[1:]
    free = free_entries(shape, pinned, mask).astype(jnp.float32)

    def level(args: tuple[Array, Array]) -> Array:
        t, level_key = args
        sigma = pair.schedule.sigma[t]

        def one(x: Array, eps: Array) -> Array:
            x_t = pin(q_sample(pair.schedule, x, t, eps), hold(pinned, x))
            base, expert = pair.base(x_t, t), pair.expert(x_t, t)
            parts = (base - expert, -base, -eps)
            return jnp.stack([(part * free / sigma).reshape(-1) for part in parts])

        eps = jax.random.normal(level_key, x_0.shape)
        # Every noise and its mirror image: what is even in the noise drops out.
        fields = jnp.stack([jax.vmap(one)(x_0, e) for e in (eps, -eps)], 1)
        halves = fields[::2], fields[1::2]
        bounds = [_bound(_rotation(a), b) for a, b in (halves, halves[::-1])]
        return (bounds[0] + bounds[1]) / 2

    levels = jnp.arange(pair.schedule.num_steps)
    return jax.lax.map(level, (levels, jax.random.split(key, levels.size)))


def _rotation(fields: Float[Array, "samples 2 3 dim"]) -> Float[Array, "dim dim"]:
    """The antisymmetric B that finds most of h: F B + B F = E[h s'] - E[s h']."""
    h, score, clean = jnp.moveaxis(fields.reshape(-1, *fields.shape[2:]), 1, 0)
    cross = h.T @ clean / len(h)
    power, axes = jnp.linalg.eigh(score.T @ score / len(h))
    turned = axes.T @ (cross - cross.T) @ axes
    sums = power[:, None] + power[None]
    return axes @ (turned / (sums + 1e-6 * jnp.square(clean).mean())) @ axes.T


def _bound(
    rotation: Float[Array, "dim dim"], fields: Float[Array, "samples 2 3 dim"]
) -> Scalar:
    """Share of h along B s: at least that is unexplained."""
    h, score, clean = jnp.moveaxis(fields, 2, 0)
    along = jnp.sum(h * (clean @ rotation.T), -1).mean(1)
    found = along.mean() - 2 * along.std(ddof=1) / jnp.sqrt(len(along))
    power = jnp.square(score @ rotation.T).sum(-1).mean()
    share = jnp.square(jnp.maximum(found, 0)) / jnp.where(power > 0, power, jnp.inf)
    return share / jnp.square(h).sum(-1).mean()


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
    a random matrix). What no reward explains lies between ``unexplainable`` and
    1 - ``explained``, up to sampling; both are shares of the relative score, unweighted
    within a level. All are NaN at a level where the models agree exactly.

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
    bound_key = jax.random.fold_in(curl_key, len(x_0))
    bound = unexplainable_by_level(pair, bound_key, x_0, pinned=pinned, mask=mask)
    if reward_fn is None:
        return Conservativity(share, bound, None)

    def variance(key: Array, x: Array) -> tuple[Array, Array]:
        return variance_by_level(reward_fn, pair, key, x, pinned=pinned, mask=mask)

    residual, signal = jax.vmap(variance)(jax.random.split(noise_key, len(x_0)), x_0)
    return Conservativity(share, bound, 1 - residual.mean(0) / signal.mean(0))
