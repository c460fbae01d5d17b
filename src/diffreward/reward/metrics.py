"""Unexplained variance and values of a reward over the levels of noise of its pair."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffreward.diffusion import free_entries, hold, pin, q_sample
from diffreward.reward.alignment import alignment_loss
from diffreward.reward.objective import SCORE, Objective
from diffreward.reward.pair import Pair
from diffreward.reward.values import noised_values
from diffreward.types import Mask, PRNGKey, RewardFn, Sample


class GradientFit(NamedTuple):
    """Weighted sums per level of a reward's gradient and the relative score."""

    residual: Float[Array, " num_steps"]
    """Of squared differences."""
    signal: Float[Array, " num_steps"]
    """Of squares of the score."""
    projection: Float[Array, " num_steps"]
    """Of gradient times score."""

    @property
    def unexplained(self) -> float:
        """Fraction of variance unexplained over all levels."""
        return float(self.residual.sum() / self.signal.sum())

    @property
    def pull(self) -> float:
        """Towards the base: the share of the difference that is missing along itself.

        It is 0 where errors have no direction, and the unexplained variance itself where
        a gradient is a least-squares fit, which shrinks.
        """
        return float(1 - self.projection.sum() / self.signal.sum())


def variance_by_level(
    reward_fn: RewardFn,
    pair: Pair,
    key: PRNGKey,
    x_0: Sample,
    *,
    objective: Objective = SCORE,
    pinned: Mask | None = None,
    mask: Mask | None = None,
) -> tuple[Float[Array, " num_steps"], Float[Array, " num_steps"]]:
    """Unexplained and total squared relative score of one trajectory, per level.

    The ratio of their means over held-out trajectories is the fraction of variance
    unexplained: 0 for a reward whose gradient is the difference, 1 for no reward.
    """
    asked = (reward_fn, pair, key, x_0)
    found = gradient_fit(*asked, objective=objective, pinned=pinned, mask=mask)
    return found.residual, found.signal


def gradient_fit(
    reward_fn: RewardFn,
    pair: Pair,
    key: PRNGKey,
    x_0: Sample,
    *,
    objective: Objective = SCORE,
    pinned: Mask | None = None,
    mask: Mask | None = None,
) -> GradientFit:
    """:func:`variance_by_level`, and how far the gradient goes along the score."""
    pair.check_pinned(pinned)
    condition = hold(pinned, x_0)
    counted = free_entries(x_0.shape, pinned, mask)

    def level(t: Array, noise_key: Array) -> GradientFit:
        eps = jax.random.normal(noise_key, x_0.shape)
        x_t = pin(q_sample(pair.schedule, x_0, t, eps), condition)
        part = objective.align(pair, x_t, t)
        _, found = alignment_loss(
            reward_fn, part.point, t, part.target, weight=part.weight, mask=counted
        )
        return GradientFit(**found)

    levels = jnp.arange(pair.schedule.num_steps)
    return jax.vmap(level)(levels, jax.random.split(key, levels.size))


def noised_reward(
    reward_fn: RewardFn,
    pair: Pair,
    key: PRNGKey,
    x_0: Sample,
    *,
    pinned: Mask | None = None,
    num_noises: int = 1,
) -> Float[Array, " num_steps"]:
    """Mean of rho(x_t, t) over noises of one clean trajectory, per level.

    The offset of a reward is free at every level, so compare trajectories at equal
    levels, or the mean over all levels; both leave the offsets constant.
    """
    levels = jnp.arange(pair.schedule.num_steps)
    keys = jax.random.split(key, (levels.size, num_noises))
    draw = jax.vmap(jax.vmap(lambda k: jax.random.normal(k, x_0.shape)))
    eps = draw(keys)
    values = noised_values(reward_fn, pair.schedule, x_0, levels, eps, pinned=pinned)
    return values.mean(1)
