"""Alignment with recorded outputs of a pair: chains are drawn once, then learned from.

Large models are asked once per state of a chain, not once per step of training.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffreward.diffusion import Schedule, draw_levels
from diffreward.learn.denoise import init
from diffreward.learn.distil import distillation_loss
from diffreward.networks import EnergyDenoiser, apply
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


class RecordedEnergy(NamedTuple):
    """An energy without its parameters, that recorded predictions of a base become."""

    network: EnergyDenoiser
    schedule: Schedule

    def record_loss(self, params: Params, at: RecordedState) -> tuple[Scalar, Metrics]:
        """Error of its x_0 against the base's at one recorded state."""
        state = (at.x_t, at.t, at.base)
        return distillation_loss(self.network, params, self.schedule, *state)


@runtime_checkable
class RecordLoss(Protocol):
    """What is trained on records."""

    @property
    def network(self) -> Any:
        """Module of ``(x, t, *context)``."""
        ...

    def record_loss(self, params: Params, at: RecordedState) -> tuple[Scalar, Metrics]:
        """Loss at one recorded state, and its sums ``residual`` and ``signal``."""
        ...


@runtime_checkable
class RecordedReward(RecordLoss, Protocol):
    """What records are aligned with: :class:`RewardModel`, :class:`LatentRewardModel`."""

    def reward_fn(self, params: Params, *context: Array) -> RewardFn:
        """Reward of a noised sample."""
        ...


def record_task(
    model: RecordLoss,
    shape: tuple[int, ...],
    batch_size: int,
    context: tuple[Array, ...] = (),
    start: Params | None = None,
) -> Task:
    """Trains on recorded outputs of a pair, one state of a chain per example.

    A reward is aligned with them, an energy (:class:`RecordedEnergy`) becomes the base's.

    ``data`` holds the fields of :class:`RecordedState`: per chain ``x_t``, ``base`` and
    ``difference``, (chains, levels, *shape); the levels ``t``, (levels,); and the arrays
    of ``context``, (chains, ...). The argument ``context`` is one chain's, for its shapes;
    ``start`` are parameters of an energy that a :class:`ResidualEnergy` starts at.
    """
    names = ("x_t", "base", "difference")

    def loss(params: Params, frozen: Any, key: PRNGKey, batch: Any) -> tuple:
        del frozen, key
        value, metrics = jax.vmap(lambda at: model.record_loss(params, at))(batch)
        return value.mean(), {"fvu": unexplained(metrics)}

    def batch(data: Any, key: PRNGKey) -> Any:
        chains, levels = data["x_t"].shape[:2]
        chain_key, level_key = jax.random.split(key)
        i = jax.random.randint(chain_key, (batch_size,), 0, chains)
        j = draw_levels(level_key, batch_size, levels)
        rows = {n: data[n][i, j].astype(jnp.float32) for n in names}
        context = jax.tree.map(lambda c: c[i], data["context"])
        return RecordedState(t=data["t"][j], context=context, **rows)

    def first(key: PRNGKey) -> Params:
        return init(model.network, shape, key, *context, start=start)

    return Task(init=first, loss=loss, draw=batch)
