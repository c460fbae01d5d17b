"""What the trained extractors share: noised batches, and one call of the trainer."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffreward import train
from diffreward.card import Reward
from diffreward.diffusion import Condition, Schedule, draw_levels, pin, q_sample
from diffreward.extract.source import AnyArray, FitSettings, Source
from diffreward.train import Task, make_optimiser
from diffreward.types import Mask, Params, PRNGKey

EMA_DECAY = 0.995
SAVE_SECONDS = 5.0
"""What an interrupted run loses at most, beside one dispatch."""


class Noised(NamedTuple):
    """A batch at random levels."""

    x_t: Float[Array, "batch ..."]
    t: Int[Array, " batch"]
    eps: Float[Array, "batch ..."]


def noise(
    schedule: Schedule, key: PRNGKey, x_0: Float[AnyArray, "batch ..."], pinned: Mask | None
) -> Noised:
    """Diffuses a batch; levels are stratified and in random order."""
    level_key, order_key, noise_key = jax.random.split(key, 3)
    t = draw_levels(level_key, x_0.shape[0], schedule.num_steps)
    # Batches are ordered (base first); levels must not be tied to that order.
    t = jax.random.permutation(order_key, t)
    eps = jax.random.normal(noise_key, x_0.shape)
    return Noised(noise_at(schedule, x_0, t, eps, pinned), t, eps)


def noise_at(
    schedule: Schedule, x_0: Any, t: Array, eps: Array, pinned: Mask | None
) -> Float[Array, "batch ..."]:
    """Diffuses a batch to given levels; pinned entries stay clean."""

    def one(x_0: Array, t: Array, eps: Array) -> Array:
        condition = None if pinned is None else Condition(pinned, x_0)
        return pin(q_sample(schedule, x_0, t, eps), condition)

    return jax.vmap(one)(x_0, t, eps)


def rows(samples: Any, key: PRNGKey, count: int) -> Any:
    """Rows drawn with replacement; the same ones of every array of a tree."""
    total = jax.tree.leaves(samples)[0].shape[0]
    picks = jax.random.randint(key, (count,), 0, total)
    return jax.tree.map(lambda x: x[picks], samples)


def halves(data: dict[str, Any], key: PRNGKey, batch_size: int) -> Any:
    """Equal numbers of rows of every entry, one entry after the other."""
    count = batch_size // len(data)
    parts = [
        rows(data[name], jax.random.fold_in(key, i), count) for i, name in enumerate(data)
    ]
    return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)


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
        units: of the reward, see ``card.UNITS``.
        evaluations: of any network, per sample of a batch.
    """
    began = time.perf_counter()

    def reward_fn(params: Params) -> Callable[[Array, Array], Array]:
        return lambda x_t, t: network.apply(params, x_t, t)

    task = Task(
        init=lambda key: network.init(key, jnp.zeros(sample.shape), jnp.int32(0)),
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
