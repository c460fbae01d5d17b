"""Alignment with recorded outputs of a pair: chains are drawn once, then learned from.

Large models are asked once per state of a chain, not once per step of training.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffreward.diffusion import draw_levels
from diffreward.learn.denoise import init
from diffreward.networks import apply
from diffreward.reward import (
    LatentStandards,
    align_latents,
    alignment_loss,
    latent_reward,
    steps_left,
    unexplained,
)
from diffreward.train import Task
from diffreward.types import Metrics, Params, PRNGKey, RewardFn, Sample, Scalar, Step


class RecordedState(NamedTuple):
    """One state of a recorded chain, and what both models predicted there."""

    x_t: Sample
    t: Step
    base: Sample
    """Noise predicted by the base."""
    difference: Sample
    """The expert's less the base's, which keeps its digits in half precision."""
    context: tuple[Array, ...] = ()
    """What a reward that reads prompts is given."""


class LatentRewardModel(NamedTuple):
    """A reward network without its parameters, of latents as published."""

    network: Any
    standards: LatentStandards

    def reward_fn(self, params: Params, *context: Array) -> RewardFn:
        """Reward of a noised latent."""
        return latent_reward(self.standards, self._read(params, *context))

    def record_loss(self, params: Params, at: RecordedState) -> tuple[Scalar, Metrics]:
        """Alignment at one recorded state."""
        # The base is not asked: both models' next latents share what it adds.
        part = align_latents(self.standards, at.x_t, at.t, at.difference)
        rho, left = self._read(params, *at.context), steps_left(self.standards, at.t)
        return alignment_loss(rho, part.point, left, part.target)

    def _read(self, params: Params, *context: Array) -> Callable[[Array, Array], Array]:
        return lambda x, t: apply(self.network, params, x, t, *context)


@runtime_checkable
class RecordedReward(Protocol):
    """What records are aligned with: :class:`RewardModel`, :class:`LatentRewardModel`."""

    @property
    def network(self) -> Any:
        """Linen module of ``(x, t, *context)``."""
        ...

    def reward_fn(self, params: Params, *context: Array) -> RewardFn:
        """Reward of a noised sample."""
        ...

    def record_loss(self, params: Params, at: RecordedState) -> tuple[Scalar, Metrics]:
        """Alignment at one recorded state."""
        ...


def record_task(
    reward: RecordedReward,
    shape: tuple[int, ...],
    batch_size: int,
    context: tuple[Array, ...] = (),
) -> Task:
    """Aligns a reward with recorded outputs of a pair, one state of a chain per example.

    ``data`` holds the fields of :class:`RecordedState`: per chain ``x_t``, ``base`` and
    ``difference``, (chains, levels, *shape); the levels ``t``, (levels,); and the arrays
    of ``context``, (chains, ...). The argument ``context`` is one chain's, for its shapes.
    """
    names = ("x_t", "base", "difference")

    def loss(params: Params, frozen: Any, key: PRNGKey, batch: Any) -> tuple:
        del frozen, key
        value, metrics = jax.vmap(lambda at: reward.record_loss(params, at))(batch)
        return value.mean(), {"fvu": unexplained(metrics)}

    def batch(data: Any, key: PRNGKey) -> Any:
        chains, levels = data["x_t"].shape[:2]
        chain_key, level_key = jax.random.split(key)
        i = jax.random.randint(chain_key, (batch_size,), 0, chains)
        j = draw_levels(level_key, batch_size, levels)
        rows = {n: data[n][i, j].astype(jnp.float32) for n in names}
        context = jax.tree.map(lambda c: c[i], data["context"])
        return RecordedState(t=data["t"][j], context=context, **rows)

    return Task(
        init=lambda key: init(reward.network, shape, key, *context), loss=loss, draw=batch
    )
