"""The record every extractor returns, its units, and the score of a clean sample."""

import math
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffreward import files
from diffreward.data.batches import map_batches
from diffreward.data.normaliser import Normaliser, normalise
from diffreward.diffusion import Context, ContextLayout, Schedule
from diffreward.names import choose
from diffreward.reward.values import noised_values
from diffreward.types import Mask, Params, PRNGKey, RewardFn, Sample

UNITS = {
    "nats": "nats: log density of the expert over the base, up to a constant per level",
    "returns": "units of the returns that were regressed, up to a constant",
    "preferences": "log odds of being preferred, up to a constant per level",
    "unknown": "units that nobody has named, up to a constant per level",
    "errors": "weighted errors of denoising, those of the base less those of the expert",
}
"""What a reward may be measured in, by the name that a card has for it."""

Form = Literal["value", "nats", "ranking"]
"""What a score is: the reward of a sample in its units, the same held to be nats, or a
mean over noise levels, which has no unit."""


class Reward(NamedTuple):
    """An extracted reward; trained ones fulfil ``reward_fn = network.apply(params, .)``.

    :func:`diffreward.card.save` writes it to disk.
    """

    reward_fn: RewardFn
    """Maps (x_t, t) to ``units``, in normalised coordinates; offsets per level are free."""
    schedule: Schedule
    extractor: str
    """Its name in the zoo."""
    units: str = "unknown"
    """A key of ``UNITS``; every extractor names its own."""
    network: Any = None
    """Linen module; None for extractors that train nothing."""
    params: Params = None
    normaliser: Normaliser | None = None
    """From the data's own units to the coordinates of ``reward_fn``."""
    cost: dict[str, float] = {}  # noqa: RUF012 - a default nobody writes to
    """Seconds and network evaluations."""
    shape: tuple[int, ...] | None = None
    """Of one sample, where it is known; of a conditional reward, of the vector of a sample
    and its context."""
    pinned: Mask | None = None
    """Entries that it was shown clean at every level, and is."""
    context: ContextLayout | None = None
    """Of a conditional reward."""

    def rows(
        self, x_0: Float[np.ndarray | Array, "samples ..."], context: Context | None = None
    ) -> Float[np.ndarray | Array, "samples ..."]:
        """Samples as the reward takes them: with their contexts, if it is conditional.

        Raises:
            ValueError: for a context that is missing, of the wrong shape, or not asked for.
        """
        if (self.context is None) != (context is None):
            raise ValueError(
                "this reward is of samples alone and takes no context"
                if self.context is None
                else f"this reward needs a context of every sample: {self.context.words}"
            )
        return x_0 if self.context is None else self.context.pack(x_0, context or {})

    def given(self, context: Context) -> "Reward":
        """The reward under one context: of samples alone, like any reward.

        It has no network of its own, so that it is no card's: save the conditional one.

        Args:
            context: arrays by name, in their own units; also traced ones.

        Raises:
            ValueError: if the reward takes none, or for one of another shape.
        """
        layout = self.context
        if layout is None:
            raise ValueError("this reward is of samples alone and takes no context")
        packed, own = layout.blank(context), None
        if self.normaliser is not None:
            packed = normalise(self.normaliser, packed)
            rows = (
                layout.alone(p).reshape(-1, *layout.shape[-1:]) for p in self.normaliser
            )
            own = Normaliser(*(row[0] for row in rows))  # along the last axis
        own_pinned = layout.own_pinned(self.pinned)
        return self._replace(
            reward_fn=layout.under(self.reward_fn, packed),
            network=None,
            params=None,
            normaliser=own,
            shape=layout.shape,
            pinned=own_pinned,
            context=None,
        )


def network_reward(
    network: Any,
    params: Params,
    schedule: Schedule,
    extractor: str,
    units: str = "unknown",
    **parts: Any,
) -> Reward:
    """The reward of a trained network; see :class:`Reward` for the further ``parts``."""
    rho = lambda x_t, t: network.apply(params, x_t, t)
    return Reward(rho, schedule, extractor, units, network, params, **parts)


def score(
    reward: Reward,
    x_0: Sample,
    key: PRNGKey,
    num_noises: int = 1,
    *,
    as_: str = "value",
) -> Float[Array, ""]:
    """Score of one clean sample; only differences between samples mean anything.

    As ``value``, the reward of the least noisy level, mean over noises of that level, in
    the units of the reward. For a reward in nats it is the log density ratio of expert
    and base up to a constant, but for what the models know of structure below the noise
    of level 0. As ``nats``, the same, and any other unit is refused. As ``ranking``, the
    mean over all levels: it averages the errors of the levels and so ranks well, but
    rewards of noisy levels are flat, so that it is several times smaller than the log
    ratio and has no unit.

    Args:
        reward: an extracted reward.
        x_0: clean sample in the data's own units; in normalised coordinates if the
            reward has no normaliser. Of a conditional reward, with its context
            (:meth:`Reward.rows`).
        key: key of the noises; give every sample the same one to compare them.
        num_noises: noises averaged per level.
        as_: what the score is, one of ``Form``.

    Raises:
        ValueError: for another form, or nats of a reward in other units.
    """
    levels = _levels(reward, as_)
    eps = jax.random.normal(key, (levels, num_noises, *x_0.shape))
    return _mean_reward(reward, x_0, eps)


def score_samples(
    reward: Reward,
    x_0: Float[np.ndarray | Array, "samples ..."],
    *,
    seed: int = 0,
    num_noises: int = 4,
    batch_size: int = 256,
    as_: str = "value",
) -> Float[np.ndarray, " samples"]:
    """:func:`score` of many samples, under noises that NumPy draws from ``seed``.

    Every sample meets the same noises, which any machine draws again: the numbers of a
    card do not depend on where it is loaded.

    Raises:
        ValueError: if a sample is not finite, or as :func:`score`.
    """
    levels = _levels(reward, as_)
    x_0 = np.asarray(x_0, np.float32)
    bad = ~np.isfinite(x_0).reshape(len(x_0), -1).all(1)
    if bad.any():
        raise ValueError(f"sample {int(np.argmax(bad))} holds a number that is not finite")
    eps = jnp.asarray(noises(levels, x_0.shape[1:], seed, num_noises))
    batched = jax.jit(jax.vmap(lambda x: _mean_reward(reward, x, eps)))
    return map_batches(batched, min(batch_size, len(x_0)), x_0)


NOISE_MEMORY = 2**30
"""Bytes that the noises of a score may take."""


def noises(levels: int, shape: tuple[int, ...], seed: int, num_noises: int) -> np.ndarray:
    """Standard normal noises, (levels, num_noises, *shape), in float32.

    Raises:
        ValueError: if they need more memory than ``files.limit`` of 1 GiB allows.
    """
    size = 4 * levels * num_noises * math.prod(shape)
    if size > files.limit(NOISE_MEMORY):
        raise ValueError(
            f"{num_noises} noises at {levels} levels need {size / files.MIB:,.0f} MiB: "
            f"take fewer, or set {files.SETTING} to the MiB you allow"
        )
    rng = np.random.default_rng(seed)
    return rng.standard_normal((levels, num_noises, *shape), np.float32)


def score_units(reward: Reward, as_: str) -> str:
    """What the numbers of :func:`score` are, in words.

    Raises:
        ValueError: as :func:`score`.
    """
    _levels(reward, as_)
    return RANKING if as_ == "ranking" else UNITS[reward.units]


RANKING = "ranking: mean of the reward over noise levels, without a unit"
"""What a ranking is, in words."""


def _levels(reward: Reward, as_: str) -> int:
    """How many of the levels, from the least noisy on, make up a score."""
    choose("form of a score", as_, get_args(Form))
    if as_ == "nats" and reward.units != "nats":
        raise ValueError(
            f"a {reward.extractor} reward is not in nats but in {UNITS[reward.units]}; ask "
            "for its value or for a ranking"
        )
    return reward.schedule.num_steps if as_ == "ranking" else 1


def _mean_reward(reward: Reward, x_0: Array, eps: Array) -> Array:
    """Mean of rho over the first levels and their noises, (levels, noises, *shape)."""
    if reward.normaliser is not None:
        x_0 = normalise(reward.normaliser, x_0)

    levels = jnp.arange(len(eps))
    pinned = reward.pinned
    values = noised_values(
        reward.reward_fn, reward.schedule, x_0, levels, eps, pinned=pinned
    )
    return values.mean()
