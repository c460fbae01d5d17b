"""Alignment of next latents: the published form for pairs of image models.

Both models take one deterministic step from the same latent, every latent is
standardised, and the reward's gradient at the current one is compared with the
difference of the two next ones. Nuti, Franzmeyer & Henriques (2023), image experiment.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from diffreward.diffusion import Schedule
from diffreward.reward.alignment import Alignment
from diffreward.types import RewardFn, Sample, Scalar, Step


class RecordedChains(NamedTuple):
    """States of chains and what both models say there."""

    x_t: Float[np.ndarray, "chains levels *shape"]
    base: Float[np.ndarray, "chains levels *shape"]
    """Noise predictions of the base."""
    difference: Float[np.ndarray, "chains levels *shape"]
    """The expert's minus the base's."""
    follows_expert: Bool[np.ndarray, " chains"]


class LatentStandards(NamedTuple):
    """Coordinates in which every latent of a chain has mean 0 and deviation 1."""

    t: Int[Array, " levels"]
    """Levels visited, noisiest first."""
    step: Float[Array, " levels"]
    """Change of the next latent per unit of predicted noise; negative."""
    mean: Float[Array, "latents *shape"]
    """Of the latent before the first step, after it, and so on: levels + 1."""
    deviation: Float[Array, "latents *shape"]


def fit_standards(
    schedule: Schedule, t: Int[np.ndarray, " levels"], chains: Iterable[RecordedChains]
) -> LatentStandards:
    """Moments of the latents that follow each level, per entry, from training chains.

    As published, both models' next latents count; mean and variance are taken within
    chains of one model and averaged with the chains' number as weight, so that the
    distance of the two means adds nothing to the variance. The first latent is noise,
    N(0, 1) by construction. (The published code never stored it and reads another in its
    place.)

    Args:
        schedule: noise schedule of the chains.
        t: their levels, noisiest first; the last step leads to the clean sample.
        chains: read once, piece by piece.

    Raises:
        ValueError: if there is no chain.
    """
    ab = np.asarray(schedule.alpha_bar, np.float64)[t]
    after = np.append(ab[1:], 1.0)
    keep = np.sqrt(after / ab)
    step = np.sqrt(1 - after) - keep * np.sqrt(1 - ab)
    moments: dict[bool, list] = {}
    for x_t, base, difference, follows_expert in chains:
        lift = lambda v, x=x_t: v.reshape((1, -1) + (1,) * (x.ndim - 2))
        wide = lambda a: a.astype(np.float64)
        start = lift(keep) * wide(x_t) + lift(step) * wide(base)
        both = np.stack([start, start + lift(step) * wide(difference)])
        for kind in np.unique(follows_expert):
            rows = both[:, follows_expert == kind]
            count, total, squares = moments.get(bool(kind), (0, 0.0, 0.0))
            moments[bool(kind)] = [
                count + rows.shape[0] * rows.shape[1],
                total + rows.sum((0, 1)),
                squares + np.square(rows).sum((0, 1)),
            ]
    if not moments:
        raise ValueError("standards of latents need at least one chain")
    counts = np.array([count for count, _, _ in moments.values()], np.float64)
    share = counts / counts.sum()
    means = [total / count for count, total, _ in moments.values()]
    variances = [
        np.maximum(squares / count - (total / count) ** 2, 0)
        for count, total, squares in moments.values()
    ]
    pooled = lambda values: np.einsum("k,k...->...", share, np.stack(values))
    mean, variance = pooled(means), pooled(variances)
    first = np.zeros((1, *mean.shape[1:]))
    return LatentStandards(
        jnp.asarray(t, jnp.int32),
        jnp.asarray(step, jnp.float32),
        jnp.asarray(np.concatenate([first, mean]), jnp.float32),
        jnp.asarray(np.concatenate([first + 1, np.sqrt(variance) + 1e-8]), jnp.float32),
    )


def align_latents(
    standards: LatentStandards, x_t: Sample, t: Step, difference: Sample
) -> Alignment:
    """Evaluation point, target and weight at one state of a chain.

    Args:
        standards: see :func:`fit_standards`.
        x_t: current latent.
        t: its level, one of ``standards.t``.
        difference: the expert's noise prediction at x_t minus the base's.
    """
    i = _place(standards, t)
    target = standards.step[i] * difference / standards.deviation[i + 1]
    return Alignment(_standard(standards, x_t, i), target, jnp.ones(()))


def latent_reward(
    standards: LatentStandards, network: Callable[[Sample, Array], Scalar]
) -> RewardFn:
    """Reward of (x_t, t) from a network that reads standardised latents.

    The network's time is the number of steps still to come after this one, 0 for the
    last, as published; other levels count as the nearest that was visited.
    """

    def rho(x_t: Sample, t: Step) -> Scalar:
        i = _place(standards, t)
        return network(_standard(standards, x_t, i), steps_left(standards, t))

    return rho


def steps_left(standards: LatentStandards, t: Step) -> Int[Array, ""]:
    """Steps that follow the one taken at ``t``."""
    return len(standards.t) - 1 - _place(standards, t)


def _place(standards: LatentStandards, t: Step) -> Int[Array, ""]:
    return jnp.argmin(jnp.abs(standards.t - t)).astype(jnp.int32)


def _standard(standards: LatentStandards, x_t: Sample, i: Int[Array, ""]) -> Sample:
    return (x_t - standards.mean[i]) / standards.deviation[i]
