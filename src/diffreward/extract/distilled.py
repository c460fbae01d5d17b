"""Rewards of any pair as differences of energies that its frozen models are distilled into.

Thornton et al. (2025, arXiv 2502.12786): a model that is no gradient of an energy gets one
by regression on what it predicts, so that no data of its own are needed.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from diffreward.extract.network import trunk
from diffreward.extract.run import START
from diffreward.extract.settings import Training
from diffreward.extract.source import Source, pair_of
from diffreward.extract.training import (
    energy_difference,
    halves,
    optimise,
    samples_of,
)
from diffreward.learn import alignment, distillation, init, noise
from diffreward.networks import EnergyDenoiser, ResidualEnergy, as_trajectory
from diffreward.reward import SCORE, Pair, Reward, score_scale
from diffreward.train import Task
from diffreward.types import EpsFn, Params


def distilled_energies(
    source: Source, settings: Training, seed: int, workdir: Path | None
) -> Reward:
    """Distils either model into an energy; their difference is the reward.

    Each is the gradient of ``<x, f(x, t)>`` (Salimans & Ho, 2021) that comes nearest to
    what its model predicts of x_0, in the weight of v. Reads the pair, and samples of
    base, expert or both, at which it looks; ``settings.network`` maps a trajectory to one
    of the same shape.

    Raises:
        ValueError: without a pair, or without any samples.
    """
    name, began = "distilled_energies", time.perf_counter()
    pair, data = _shown(name, source)
    both = _distil(name, (pair.base, pair.expert), source, settings, seed, workdir, data)
    evaluations = 4 * settings.steps * settings.batch_size
    return energy_difference(name, _net(settings), both, source, began, evaluations)


def residual_alignment(
    source: Source, settings: Training, seed: int, workdir: Path | None
) -> Reward:
    """Gradient alignment of an energy that starts at the one the base is distilled into.

    Distils the base as :func:`distilled_energies` does, then aligns the difference of an
    energy and that one with the pair (Nuti et al., 2023); ``settings.steps`` each. Reads
    the pair, and samples of base, expert or both; ``settings.network`` maps a trajectory
    to one of the same shape.

    Raises:
        ValueError: without a pair, or without any samples.
    """
    name, began = "residual_alignment", time.perf_counter()
    pair, data = _shown(name, source)
    before = None if workdir is None else workdir / START
    start = _distil(name, (pair.base,), source, settings, seed, before, data)
    start = jax.tree.map(lambda x: x[0], start)
    network, pinned = ResidualEnergy(_net(settings)), _pinned(source)

    def loss(params: Params, frozen: Any, key: Array, x_0: Array) -> tuple:
        del frozen

        def rho(x_t: Array, t: Array) -> Array:
            return score_scale(pair.schedule, t) * network.apply(params, x_t, t)

        noised = noise(pair.schedule, key, x_0, pinned)
        mask = None if pinned is None else jnp.broadcast_to(~pinned, x_0.shape)
        return alignment(rho, pair, SCORE, noised, mask)

    task = Task(
        init=lambda key: network.starting_at(start),
        loss=loss,
        draw=lambda data, key: halves(data, key, settings.batch_size),
    )
    found = optimise(name, task, settings, seed, workdir, data=data)
    # The start as it was: averaging rounds what is held still.
    both = jax.tree.map(lambda *x: np.stack(x), start, found["energy"])
    evaluations = 6 * settings.steps * settings.batch_size
    return energy_difference(name, network.net, both, source, began, evaluations)


def _net(settings: Training) -> Any:
    return settings.network or trunk(settings)


def _pinned(source: Source) -> Array | None:
    return None if source.pinned is None else as_trajectory(source.pinned)


def _shown(name: str, source: Source) -> tuple[Pair, dict[str, Array]]:
    """The pair and its samples as networks of trajectories are shown them."""
    pair, samples = pair_of(name, source), samples_of(source)
    if not samples:
        raise ValueError(f"{name} needs samples; give Source.base, Source.expert or both")
    shape = next(iter(samples.values())).shape[1:]

    def shown(eps_fn: EpsFn) -> EpsFn:
        return lambda x_t, t: as_trajectory(eps_fn(x_t.reshape(shape), t))

    as_trajectories = {n: jax.vmap(as_trajectory)(x) for n, x in samples.items()}
    return Pair(shown(pair.base), shown(pair.expert), pair.schedule), as_trajectories


def _distil(
    name: str,
    models: Sequence[EpsFn],
    source: Source,
    settings: Training,
    seed: int,
    workdir: Path | None,
    data: dict[str, Array],
) -> Params:
    """Parameters of an energy for each model, stacked."""
    schedule, pinned = pair_of(name, source).schedule, _pinned(source)
    student = EnergyDenoiser(_net(settings))
    shape = next(iter(data.values())).shape[1:]

    def loss(params: Params, frozen: Any, key: Array, x_0: Array) -> tuple:
        del frozen
        noised = noise(schedule, key, x_0, pinned)
        mask = None if pinned is None else jnp.broadcast_to(~pinned, x_0.shape)
        own = lambda i: jax.tree.map(lambda x: x[i], params)
        each = [
            distillation(student, own(i), eps_fn, schedule, noised, mask)
            for i, eps_fn in enumerate(models)
        ]
        return jax.tree.map(lambda *x: sum(x) / len(x), *each)

    task = Task(
        init=lambda key: jax.vmap(lambda k: init(student, shape, k))(
            jax.random.split(key, len(models))
        ),
        loss=loss,
        draw=lambda data, key: halves(data, key, settings.batch_size),
    )
    return optimise(name, task, settings, seed, workdir, data=data)
