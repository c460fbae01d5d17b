"""Two conservative denoisers, and the difference of their energies."""

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffreward.diffusion import draw_levels
from diffreward.extract.network import trunk
from diffreward.extract.settings import Training
from diffreward.extract.source import Source, require, schedule_of
from diffreward.extract.training import energy_difference, optimise, samples_of
from diffreward.learn import batch_loss, init, rows
from diffreward.networks import (
    EnergyDenoiser,
    as_trajectory,
)
from diffreward.reward import Reward
from diffreward.train import Task
from diffreward.types import Params


def energy_pair(
    source: Source, settings: Training, seed: int, workdir: Path | None
) -> Reward:
    """Trains a conservative denoiser on either data set; their energies differ by rho.

    Each predicts x_0 as the gradient of an energy (Salimans & Ho, 2021), so the
    difference of their scores is a gradient exactly: sqrt(alpha_bar) / sigma^2 times
    E_expert - E_base. Reads base and expert; ``settings.network`` maps a
    trajectory to one of the same shape.

    Raises:
        ValueError: without samples of both.
    """
    name = "energy_pair"
    require(name, source, "base", "expert")
    began = time.perf_counter()
    schedule, samples = schedule_of(name, source), samples_of(source)
    net = settings.network or trunk(settings)
    denoiser = EnergyDenoiser(net)
    pinned = None if source.pinned is None else as_trajectory(source.pinned)
    # Members of a population need arrays of one size; rows are drawn with replacement.
    count = max(map(len, samples.values()))
    data = jnp.stack([x[jnp.arange(count) % len(x)] for x in samples.values()])
    data = jax.vmap(jax.vmap(as_trajectory))(data)

    def loss(params: Params, frozen: Any, key: Array, x_0: Array) -> tuple:
        del frozen
        level_key, noise_key = jax.random.split(key)
        t = draw_levels(level_key, x_0.shape[0], schedule.num_steps)
        eps = jax.random.normal(noise_key, x_0.shape)
        # Errors of x_0 in the weight of v, as the reward is measured.
        level_weight = (1 / jnp.square(schedule.sigma))[t]
        weight = jnp.broadcast_to(level_weight[:, None, None], x_0.shape)
        options = {"weight": weight, "pinned": pinned}
        return batch_loss(denoiser, params, schedule, x_0, t, eps, **options)

    task = Task(
        init=lambda key: init(denoiser, data.shape[2:], key),
        loss=loss,
        draw=lambda data, key: rows(data, key, settings.batch_size // 2),
    )
    both = optimise(
        name, task, settings, seed, workdir, data=data, population=2, data_axes=0
    )
    evaluations = settings.steps * settings.batch_size
    return energy_difference(name, net, both, source, began, evaluations)
