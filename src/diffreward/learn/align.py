"""Gradient alignment as it is trained: the method of the paper, and of its records.

Nuti, Franzmeyer & Henriques (2023). What a reward is aligned with is an
:class:`diffreward.reward.Objective`; networks become rewards in its units here.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffreward.data import draw
from diffreward.diffusion import Schedule, draw_levels
from diffreward.learn.denoise import Denoiser, init
from diffreward.learn.noise import Noised, equal_parts, noise
from diffreward.networks import EnergyDenoiser, apply
from diffreward.reward import (
    LatentStandards,
    Objective,
    Pair,
    align_latents,
    alignment_loss,
    latent_reward,
    score_scale,
    steps_left,
)
from diffreward.train import Task
from diffreward.types import (
    AnyArray,
    Metrics,
    Params,
    PRNGKey,
    RewardFn,
    Sample,
    Scalar,
    Step,
)

SOURCES = {
    "base": ("base",),
    "expert": ("expert",),
    "mixed": ("base", "expert"),
    "models": ("base", "expert"),
    "crossed": ("base", "expert", "base_at_expert", "expert_at_base"),
}
"""Sets of windows that x_0 is drawn from, in equal parts."""


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


class RewardModel(NamedTuple):
    """A reward network without its parameters, in the units of one objective."""

    network: Any
    schedule: Schedule
    objective: Objective
    num_windows: int = 1
    """Of the sample; the network is a mean over them."""

    def reward_fn(self, params: Params, *context: Array) -> RewardFn:
        """Reward of a whole noised sample: of a trajectory, the sum over its windows.

        A network that reads a prompt is given its encoding as ``context``.
        """
        return self._scaled(params, self.num_windows, *context)

    def window_fn(self, params: Params) -> RewardFn:
        """Reward of one window alone, its share of that sum."""
        return self._scaled(params, 1)

    def record_loss(self, params: Params, at: RecordedState) -> tuple[Scalar, Metrics]:
        """Alignment at one recorded state, from the predictions of both models there."""
        expert = at.base + at.difference
        known = Pair(lambda x, t: at.base, lambda x, t: expert, self.schedule)
        part = self.objective.align(known, at.x_t, at.t)
        rho = self.reward_fn(params, *at.context)
        return alignment_loss(rho, part.point, at.t, part.target, weight=part.weight)

    def _scaled(self, params: Params, windows: int, *context: Array) -> RewardFn:
        count = windows if self.objective.sums_windows else 1

        def rho(x_t: Array, t: Array) -> Array:
            factor = count * self.objective.scale(self.schedule, t)
            return factor * apply(self.network, params, x_t, t, *context)

        return rho


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


def alignment(
    reward_fn: RewardFn,
    pair: Pair,
    objective: Objective,
    noised: Noised,
    mask: Bool[AnyArray, "batch ..."] | None = None,
) -> tuple[Scalar, Metrics]:
    """Mean loss of a batch, and its fraction of variance unexplained.

    Args:
        reward_fn: reward of (x_t, t).
        pair: what it is aligned with.
        objective: how.
        noised: states of the batch.
        mask: entries that count; all by default.
    """

    def one(x_t: Array, t: Array, mask: Any) -> tuple:
        part = objective.align(pair, x_t, t)
        return alignment_loss(
            reward_fn, part.point, t, part.target, weight=part.weight, mask=mask
        )

    axes = (0, 0, None if mask is None else 0)
    value, metrics = jax.vmap(one, axes)(noised.x_t, noised.t, mask)
    return value.mean(), {"fvu": unexplained(metrics)}


def unexplained(metrics: Metrics) -> Float[Array, ""]:
    """Fraction of variance unexplained over a batch of alignment losses."""
    return metrics["residual"].sum() / metrics["signal"].sum()


def reward_task(model: Denoiser, reward: RewardModel, source: str, batch_size: int) -> Task:
    """Aligns a reward with a frozen pair.

    Args:
        model: both denoisers.
        reward: what is trained.
        source: a key of ``SOURCES``.
        batch_size: windows of all sets together.

    Returns:
        A task whose ``frozen`` holds the parameters of ``base`` and ``expert``, and whose
        ``data`` are the windows of every set of the source (for ``models``, ``base`` and
        ``expert`` are samples).
    """
    objective, names = reward.objective, SOURCES[source]

    def loss(params: Params, frozen: Any, key: PRNGKey, batch: Any) -> tuple:
        x_0, mask, pinned = batch["x_0"], None, None
        if objective.conditioned:
            pinned = model.pinned
            mask = jnp.broadcast_to(~pinned, x_0.shape)
            if model.mask_padding:
                mask = mask & batch["valid"][:, :, None]
        noised = noise(model.schedule, key, x_0, pinned)
        pair = model.pair(frozen["base"], frozen["expert"])
        return alignment(reward.reward_fn(params), pair, objective, noised, mask)

    def batch(data: Any, key: PRNGKey) -> Any:
        of_set = lambda name, key, count: draw(data[name], key, count, model.shape[0])
        if len(names) == 1:
            return of_set(names[0], key, batch_size)
        return equal_parts(of_set, names, key, batch_size)

    return Task(
        init=lambda key: init(reward.network, model.shape, key), loss=loss, draw=batch
    )


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


def energy_reward(model: Denoiser, base: Params, expert: Params) -> RewardFn:
    """The relative reward of two conservative models, exact without training.

    Raises:
        ValueError: if the model is not conservative.
    """
    network = model.network
    if not isinstance(network, EnergyDenoiser):
        raise ValueError(
            "the difference of two energies needs conservative models; set "
            "model.conservative=True"
        )

    def rho(x_t: Array, t: Array) -> Array:
        difference = network.energy(expert, x_t, t) - network.energy(base, x_t, t)
        return score_scale(model.schedule, t) * difference

    return rho
