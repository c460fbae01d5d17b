"""Gradient alignment: the loss that turns a pair of models into a reward.

Nuti, Franzmeyer & Henriques (2023): learn rho with
``grad_x rho(x_t, t) = score_expert(x_t, t) - score_base(x_t, t)``.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffreward.reward.pair import Pair, posterior_means, relative_score
from diffreward.types import Mask, Metrics, RewardFn, Sample, Scalar, Step


class Alignment(NamedTuple):
    """Where the reward is differentiated, what it is compared with, and how much."""

    point: Sample
    target: Sample
    weight: Float[Array, ""]


def align_scores(pair: Pair, x_t: Sample, t: Step) -> Alignment:
    """At x_t, against the relative score, in the weight of v; nothing is differentiated.

    The weight sigma^2 / alpha_bar makes the loss the squared difference of the two
    models' v-predictions, which is bounded at the noisy end. Towards low noise it depends
    on the pair: laws that overlap and are smooth have a finite relative score, whose
    weight fades like sigma^2; for disjoint supports the weighted square grows like
    1 / sigma^2.
    """
    schedule = pair.schedule
    weight = jnp.square(schedule.sigma[t]) / schedule.alpha_bar[t]
    parts = (x_t, relative_score(pair, x_t, t), weight)
    return Alignment(*jax.lax.stop_gradient(parts))


def align_means(pair: Pair, x_t: Sample, t: Step) -> Alignment:
    """At the base's posterior mean, against the difference of the two, unweighted.

    What the published code does; it gives the reward the level of x_t, though a mean of
    the next step has less noise.
    """
    base_mean, expert_mean = posterior_means(pair, x_t, t)
    parts = (base_mean, expert_mean - base_mean, jnp.ones(()))
    return Alignment(*jax.lax.stop_gradient(parts))


def alignment_loss(
    reward_fn: RewardFn,
    x_t: Sample,
    t: Step,
    target: Sample,
    *,
    weight: Float[Array, ""] | float = 1.0,
    mask: Mask | None = None,
) -> tuple[Scalar, Metrics]:
    """Weighted mean squared distance of the reward's gradient to ``target``.

    Args:
        reward_fn: scalar function of (x_t, t).
        x_t: where the gradient is taken.
        t: noise level.
        target: what the gradient should be.
        weight: factor w(t).
        mask: entries that count; pinned and padded entries are False.

    Returns:
        ``weight * mean((grad rho - target)^2)`` over the counted entries, and weighted
        sums over them: ``residual`` and ``signal``, whose ratio over a batch is the
        fraction of variance unexplained, and ``projection``, of gradient times target.
    """
    gradient = jax.grad(reward_fn)(x_t, t)
    counted = jnp.ones(x_t.shape) if mask is None else mask.astype(x_t.dtype)
    residual = weight * jnp.sum(jnp.square(gradient - target) * counted)
    signal = weight * jnp.sum(jnp.square(target) * counted)
    projection = weight * jnp.sum(gradient * target * counted)
    loss = residual / jnp.maximum(counted.sum(), 1.0)
    return loss, {"residual": residual, "signal": signal, "projection": projection}


def unexplained(metrics: Metrics) -> Float[Array, ""]:
    """Fraction of variance unexplained over a batch of alignment losses."""
    return metrics["residual"].sum() / metrics["signal"].sum()
