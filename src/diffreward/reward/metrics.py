"""Unexplained variance and values of a reward over the levels of noise of its pair."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffreward.diffusion import free_entries, hold, pin, q_sample
from diffreward.reward.alignment import alignment_loss
from diffreward.reward.objective import SCORE, Objective
from diffreward.reward.pair import Pair
from diffreward.reward.values import noised_values
from diffreward.types import Mask, PRNGKey, RewardFn, Sample


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
    pair.check_pinned(pinned)
    condition = hold(pinned, x_0)
    counted = free_entries(x_0.shape, pinned, mask)

    def level(t: Array, noise_key: Array) -> tuple[Array, Array]:
        eps = jax.random.normal(noise_key, x_0.shape)
        x_t = pin(q_sample(pair.schedule, x_0, t, eps), condition)
        part = objective.align(pair, x_t, t)
        _, metrics = alignment_loss(
            reward_fn, part.point, t, part.target, weight=part.weight, mask=counted
        )
        return metrics["residual"], metrics["signal"]

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
