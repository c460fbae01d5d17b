"""What a reward says of a clean sample: its values where noise has been added."""

import jax
from jaxtyping import Array, Float, Int

from diffreward.diffusion import Schedule, hold, pin, q_sample
from diffreward.types import Mask, RewardFn, Sample, Step


def noised_values(
    reward_fn: RewardFn,
    schedule: Schedule,
    x_0: Sample,
    levels: Int[Array, " levels"],
    eps: Float[Array, "levels noises ..."],
    *,
    pinned: Mask | None = None,
) -> Float[Array, "levels noises"]:
    """rho(x_t, t) of one clean sample, at the given levels and under the given noises.

    The offset of a reward is free at every level, so compare samples at equal levels, or
    means over the same levels; give all of them the same noises, whose influence then
    cancels.

    Args:
        reward_fn: reward of (x_t, t).
        schedule: noise levels.
        x_0: clean sample, in the coordinates of the reward.
        levels: at which it is asked.
        eps: standard normal noises of every level.
        pinned: conditioned entries; they stay clean.
    """
    at = lambda t, eps: level_values(reward_fn, schedule, x_0, t, eps, pinned=pinned)
    return jax.vmap(at)(levels, eps)


def level_values(
    reward_fn: RewardFn,
    schedule: Schedule,
    x_0: Sample,
    t: Step,
    eps: Float[Array, "noises ..."],
    *,
    pinned: Mask | None = None,
) -> Float[Array, " noises"]:
    """:func:`noised_values` of one level."""
    condition = hold(pinned, x_0)

    def value(noise: Array) -> Array:
        return reward_fn(pin(q_sample(schedule, x_0, t, noise), condition), t)

    return jax.vmap(value)(eps)
