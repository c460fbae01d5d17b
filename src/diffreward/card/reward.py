"""The record every extractor returns, and the value it gives a clean sample."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffreward.data.normaliser import Normaliser, normalise
from diffreward.diffusion import Schedule, q_sample
from diffreward.types import Params, PRNGKey, RewardFn, Sample


class Reward(NamedTuple):
    """An extracted reward; trained ones fulfil ``reward_fn = network.apply(params, .)``."""

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

    def save(self, folder: str | Path, shape: tuple[int, ...], **parts: Any) -> None:
        """Writes a reward card; see :func:`diffreward.card.save`."""
        from diffreward.card.files import save

        save(self, folder, shape, **parts)


def network_reward(
    network: Any, params: Params, schedule: Schedule, extractor: str, **parts: Any
) -> Reward:
    """The reward of a trained network; see :class:`Reward` for the further ``parts``."""
    rho = lambda x_t, t: network.apply(params, x_t, t)
    return Reward(rho, schedule, extractor, network, params, **parts)


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
    levels = reward.schedule.num_steps
    eps = jax.random.normal(key, (levels, num_noises, *x_0.shape))
    return _mean_reward(reward, x_0, eps)


def score_samples(
    reward: Reward,
    x_0: Float[np.ndarray | Array, "samples ..."],
    *,
    seed: int = 0,
    num_noises: int = 4,
    batch_size: int = 256,
) -> Float[np.ndarray, " samples"]:
    """:func:`score` of many samples, under noises that NumPy draws from ``seed``.

    Every sample meets the same noises, which any machine draws again: the numbers of a
    card do not depend on where it is loaded.

    Raises:
        ValueError: if a sample is not finite.
    """
    x_0 = np.asarray(x_0, np.float32)
    bad = ~np.isfinite(x_0).reshape(len(x_0), -1).all(1)
    if bad.any():
        raise ValueError(f"sample {int(np.argmax(bad))} holds a number that is not finite")
    eps = jnp.asarray(noises(reward.schedule, x_0.shape[1:], seed, num_noises))
    batched = jax.jit(jax.vmap(lambda x: _mean_reward(reward, x, eps)))
    # Whole batches only, so that one program is compiled.
    rows = np.resize(np.arange(len(x_0)), -(-len(x_0) // batch_size) * batch_size)
    size = min(batch_size, len(x_0))
    parts = [batched(x_0[rows[i : i + size]]) for i in range(0, len(x_0), size)]
    return np.concatenate(parts)[: len(x_0)]


def noises(
    schedule: Schedule, shape: tuple[int, ...], seed: int, num_noises: int
) -> np.ndarray:
    """Standard normal noises, (num_steps, num_noises, *shape), in float32."""
    rng = np.random.default_rng(seed)
    size = (schedule.num_steps, num_noises, *shape)
    return rng.standard_normal(size, np.float32)


def _mean_reward(reward: Reward, x_0: Array, eps: Array) -> Array:
    """Mean of rho over levels and the given noises, (levels, noises, *shape)."""
    if reward.normaliser is not None:
        x_0 = normalise(reward.normaliser, x_0)

    def value(t: Array, noise: Array) -> Array:
        return reward.reward_fn(q_sample(reward.schedule, x_0, t, noise), t)

    levels = jnp.arange(reward.schedule.num_steps)
    return jax.vmap(lambda t, es: jax.vmap(lambda e: value(t, e))(es))(levels, eps).mean()
