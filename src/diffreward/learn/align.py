"""Gradient alignment as it is trained: the method of the paper.

Nuti, Franzmeyer & Henriques (2023). What a reward is aligned with is an
:class:`diffreward.reward.Objective`; networks become rewards in its units here.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from diffreward.data import draw
from diffreward.diffusion import Schedule
from diffreward.learn.denoise import Denoiser, init
from diffreward.learn.noise import Noised, equal_parts, noise
from diffreward.learn.records import RecordedState
from diffreward.learn.weighting import Weighting, plain
from diffreward.networks import EnergyDenoiser, apply
from diffreward.reward import (
    Objective,
    Pair,
    alignment_loss,
    score_scale,
    unexplained,
)
from diffreward.train import Task
from diffreward.types import AnyArray, Metrics, Params, PRNGKey, RewardFn, Scalar

SOURCES = {
    "base": ("base",),
    "expert": ("expert",),
    "mixed": ("base", "expert"),
    "models": ("base", "expert"),
    "crossed": ("base", "expert", "base_at_expert", "expert_at_base"),
    "steered": ("base", "expert", "base_at_expert", "expert_at_base", "steered"),
}
"""Sets of windows that x_0 is drawn from, in equal parts."""


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


def alignment(
    reward_fn: RewardFn,
    pair: Pair,
    objective: Objective,
    noised: Noised,
    mask: Bool[AnyArray, "batch ..."] | None = None,
    weighting: Weighting = plain,
) -> tuple[Scalar, Metrics]:
    """Mean loss of a batch, and its fraction of variance unexplained.

    Args:
        reward_fn: reward of (x_t, t).
        pair: what it is aligned with.
        objective: how.
        noised: states of the batch.
        mask: entries that count; all by default.
        weighting: what every state counts beside the objective's own weight, which alone
            is that of the unexplained variance.
    """

    def one(x_t: Array, t: Array, mask: Any) -> tuple:
        part = objective.align(pair, x_t, t)
        return alignment_loss(
            reward_fn, part.point, t, part.target, weight=part.weight, mask=mask
        )

    axes = (0, 0, None if mask is None else 0)
    value, metrics = jax.vmap(one, axes)(noised.x_t, noised.t, mask)
    factor = weighting(pair.schedule, noised.t, metrics["signal"])
    return (factor * value).mean(), {"fvu": unexplained(metrics)}


def reward_task(
    model: Denoiser,
    reward: RewardModel,
    source: str,
    batch_size: int,
    start: Params | None = None,
    weighting: Weighting = plain,
) -> Task:
    """Aligns a reward with a frozen pair.

    Args:
        model: both denoisers.
        reward: what is trained.
        source: a key of ``SOURCES``.
        batch_size: windows of all sets together.
        start: parameters of an energy that a :class:`ResidualEnergy` starts at; random
            ones by default.
        weighting: what every state counts; see :func:`alignment`.

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
        rho = reward.reward_fn(params)
        return alignment(rho, pair, objective, noised, mask, weighting)

    def batch(data: Any, key: PRNGKey) -> Any:
        of_set = lambda name, key, count: draw(data[name], key, count, model.shape[0])
        if len(names) == 1:
            return of_set(names[0], key, batch_size)
        return equal_parts(of_set, names, key, batch_size)

    def first(key: PRNGKey) -> Params:
        return init(reward.network, model.shape, key, start=start)

    return Task(init=first, loss=loss, draw=batch)


def log_density(model: Denoiser, params: Params) -> RewardFn:
    """Log density of noised samples under a conservative model, up to a constant per level.

    What it predicts of x_0 is the gradient of an energy E, so its score is the gradient of
    ``(sqrt(alpha_bar) E - |x_t|^2 / 2) / sigma^2``.

    Raises:
        ValueError: if the model is not conservative.
    """
    network = model.network
    if not isinstance(network, EnergyDenoiser):
        raise ValueError(
            "the log density of a model needs an energy; set model.conservative=True"
        )

    def value(x_t: Array, t: Array) -> Scalar:
        energy = model.schedule.sqrt_alpha_bar[t] * network.energy(params, x_t, t)
        return (energy - jnp.vdot(x_t, x_t) / 2) / jnp.square(model.schedule.sigma[t])

    return value


def energy_reward(model: Denoiser, base: Params, expert: Params) -> RewardFn:
    """The relative reward of two conservative models, exact without training.

    Raises:
        ValueError: if the model is not conservative.
    """
    network = model.network
    if not isinstance(network, EnergyDenoiser) or model.expert is not None:
        raise ValueError(
            "the difference of two energies needs conservative models of one network; set "
            "model.conservative=True"
        )

    def rho(x_t: Array, t: Array) -> Array:
        difference = network.energy(expert, x_t, t) - network.energy(base, x_t, t)
        return score_scale(model.schedule, t) * difference

    return rho
