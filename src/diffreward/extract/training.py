"""What the trained extractors share: their samples, and one call of the trainer."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffreward import train
from diffreward.diffusion import Schedule
from diffreward.extract.network import score_scales
from diffreward.extract.settings import Training
from diffreward.extract.source import Source, pair_of, schedule_of
from diffreward.learn import equal_parts, init, rows
from diffreward.networks import EnergyDifference, LevelScaled
from diffreward.reward import Reward
from diffreward.train import Task, make_optimiser
from diffreward.types import Params, PRNGKey, RewardFn

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
    settings: Training,
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


class Lesson(NamedTuple):
    """How one extractor trains a network that is a reward."""

    network: Any
    """Linen module of (x_t, t) to ``units``."""
    loss: Callable[..., tuple]
    """Maps (reward function, key, batch) to a scalar and metrics."""
    draw: Callable[[Any, PRNGKey], Any]
    """Maps (data, key) to a batch."""
    data: Any
    """Pytree of arrays that batches are drawn from."""
    shape: tuple[int, ...]
    """Of a sample."""
    schedule: Schedule
    units: str
    """Of the reward, a key of ``UNITS`` of `diffreward.reward.record`."""
    evaluations: int = 1
    """Forward passes of any network, per sample of a batch."""


def train_reward(
    name: str,
    lesson: Lesson,
    source: Source,
    settings: Training,
    seed: int,
    workdir: Path | None,
) -> Reward:
    """The reward of the extractor ``name`` after its lesson."""
    began = time.perf_counter()
    network = lesson.network

    def reward_fn(params: Params) -> Callable[[Array, Array], Array]:
        return lambda x_t, t: network.apply(params, x_t, t)

    task = Task(
        init=lambda key: init(network, lesson.shape, key),
        loss=lambda params, frozen, key, batch: lesson.loss(reward_fn(params), key, batch),
        draw=lesson.draw,
    )
    params = optimise(name, task, settings, seed, workdir, data=lesson.data)
    total = lesson.evaluations * settings.steps * settings.batch_size
    return Reward(
        reward_fn=reward_fn(params),
        schedule=lesson.schedule,
        extractor=name,
        units=lesson.units,
        network=network,
        params=params,
        normaliser=source.normaliser,
        cost=cost(began, total, 1),
    )


def energy_difference(
    name: str, net: Any, both: Params, source: Source, began: float, evaluations: int
) -> Reward:
    """The reward of two energies of f = ``net``; parameters are stacked, base first."""
    schedule = schedule_of(name, source)
    network: Any = LevelScaled(EnergyDifference(net), score_scales(schedule))
    params = {"params": {"net": both["params"]}}
    return Reward(
        reward_fn=lambda x_t, t: network.apply(params, x_t, t),
        schedule=schedule,
        extractor=name,
        units="nats",
        network=network,
        params=params,
        normaliser=source.normaliser,
        cost=cost(began, evaluations, 2),
    )


def untrained(
    name: str,
    rho: RewardFn,
    source: Source,
    units: str,
    began: float,
    evaluations_per_value: int,
) -> Reward:
    """A reward made of the two models alone."""
    schedule = pair_of(name, source).schedule
    costs = cost(began, 0, evaluations_per_value)
    return Reward(rho, schedule, name, units, normaliser=source.normaliser, cost=costs)


def cost(began: float, evaluations: int, per_value: int) -> dict[str, float]:
    """Seconds since ``began``, and forward passes of any network on one sample."""
    return {
        "seconds": time.perf_counter() - began,
        "evaluations": float(evaluations),
        "evaluations_per_value": float(per_value),
    }
