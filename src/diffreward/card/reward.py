"""The record every extractor returns, and the value it gives a clean sample."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffreward.data.normaliser import Normaliser, normalise
from diffreward.diffusion import Schedule, q_sample
from diffreward.types import Params, PRNGKey, RewardFn, Sample


class Reward(NamedTuple):
    """An extracted reward; trained ones fulfil reward_fn = network.apply(params, ...)."""

    reward_fn: RewardFn
    """Maps (x_t, t) to nats, in normalised coordinates; offsets per level are free."""
    schedule: Schedule
    extractor: str
    """Its name in the zoo."""
    network: Any = None
    """Linen module; None for extractors that train nothing."""
    params: Params = None
    normaliser: Normaliser | None = None
    """From the data's own units to the coordinates of ``reward_fn``."""
    cost: dict[str, float] = {}  # noqa: RUF012 - a default nobody writes to
    """Seconds and network evaluations."""


def score(
    reward: Reward, x_0: Sample, key: PRNGKey, num_noises: int = 1
) -> Float[Array, ""]:
    """Mean over noise levels of the noised reward of one clean sample, in nats.

    Offsets per level are free, so only differences between samples mean anything.

    Args:
        reward: an extracted reward.
        x_0: clean sample in the data's own units; in normalised coordinates if the
            reward has no normaliser.
        key: key of the noises; give every sample the same one to compare them.
        num_noises: noises averaged per level.
    """
    schedule = reward.schedule
    if reward.normaliser is not None:
        x_0 = normalise(reward.normaliser, x_0)

    def value(t: Array, noise_key: Array) -> Array:
        eps = jax.random.normal(noise_key, x_0.shape)
        return reward.reward_fn(q_sample(schedule, x_0, t, eps), t)

    levels = jnp.arange(schedule.num_steps)
    keys = jax.random.split(key, (levels.size, num_noises))
    return jax.vmap(lambda t, ks: jax.vmap(lambda k: value(t, k))(ks))(levels, keys).mean()
