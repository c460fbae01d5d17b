"""What the trained extractors share: their samples, and one call of the trainer."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffreward import train
from diffreward.diffusion import Schedule
from diffreward.extract.source import FitSettings, Source
from diffreward.learn import equal_parts, init, rows
from diffreward.reward import Reward
from diffreward.train import Task, make_optimiser
from diffreward.types import Params, PRNGKey

EMA_DECAY = 0.995
SAVE_SECONDS = 5.0
"""What an interrupted run loses at most, beside one dispatch."""


def halves(data: dict[str, Any], key: PRNGKey, batch_size: int) -> Any:
    """Equal numbers of rows of every entry, one entry after the other."""
    draw = lambda name, key, count: rows(data[name], key, count)
    return equal_parts(draw, data, key, batch_size)


def samples_of(source: Source) -> dict[str, Array]:
    """The clean samples there are, by model."""
    given = {"base": source.base, "expert": source.expert}
    return {n: jnp.asarray(x, jnp.float32) for n, x in given.items() if x is not None}


def optimise(
    name: str,
    task: Task,
    settings: FitSettings,
    seed: int,
    workdir: Path | None,
    *,
    data: Any,
    population: int | None = None,
    data_axes: Any = None,
) -> Params:
    """Averaged parameters after the steps of the settings, on the host."""
    with tempfile.TemporaryDirectory() as scratch:
        state = train.optimise(
            task,
            make_optimiser(
                settings.learning_rate,
                steps=settings.steps,
                schedule="cosine",
                clip_norm=1.0,
            ),
            data=data,
            steps=settings.steps,
            seed=seed,
            workdir=workdir or scratch,
            name=name,
            members=train.Members(population, data_axes),
            numerics=train.Numerics(ema_decay=EMA_DECAY),
            loop=train.Loop(
                steps_per_dispatch=min(settings.steps, settings.steps_per_dispatch),
                log_every=settings.steps_per_dispatch,
                checkpoint_every=settings.steps,
                checkpoint_seconds=None if workdir is None else SAVE_SECONDS,
                progress=settings.progress,
            ),
        )
        return jax.device_get(state.ema_params)


def train_reward(
    name: str,
    network: Any,
    loss: Callable[..., tuple],
    draw: Callable[[Any, PRNGKey], Any],
    source: Source,
    settings: FitSettings,
    seed: int,
    workdir: Path | None,
    *,
    data: Any,
    sample: Any,
    schedule: Schedule,
    units: str,
    evaluations: int,
) -> Reward:
    """Trains a network that is a reward.

    Args:
        name: of the extractor.
        network: Linen module of (x_t, t) to ``units``.
        loss: maps (reward function, key, batch) to a scalar and metrics.
        draw: maps (data, key) to a batch.
        source: for the normaliser.
        settings: of the optimiser.
        seed: of everything.
        workdir: of the run.
        data: pytree of arrays batches are drawn from.
        sample: one sample, for the shapes.
        schedule: noise levels.
        units: of the reward, see ``reward.UNITS``.
        evaluations: of any network, per sample of a batch.
    """
    began = time.perf_counter()

    def reward_fn(params: Params) -> Callable[[Array, Array], Array]:
        return lambda x_t, t: network.apply(params, x_t, t)

    task = Task(
        init=lambda key: init(network, sample.shape, key),
        loss=lambda params, frozen, key, batch: loss(reward_fn(params), key, batch),
        draw=draw,
    )
    params = optimise(name, task, settings, seed, workdir, data=data)
    total = evaluations * settings.steps * settings.batch_size
    return Reward(
        reward_fn=reward_fn(params),
        schedule=schedule,
        extractor=name,
        units=units,
        network=network,
        params=params,
        normaliser=source.normaliser,
        cost=cost(began, total, 1),
    )


def cost(began: float, evaluations: int, per_value: int) -> dict[str, float]:
    """Seconds since ``began``, and forward passes of any network on one sample."""
    return {
        "seconds": time.perf_counter() - began,
        "evaluations": float(evaluations),
        "evaluations_per_value": float(per_value),
    }
