"""An independent judge: a classifier of real pictures, which counts what models draw.

It has learned from people's own pictures and their kinds, never from a model of the pair
nor from the reward.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from diffreward import data as d
from diffreward import report
from diffreward.learn import equal_parts, init
from diffreward.networks import ValueUnet, apply
from diffreward.train import Task
from diffreward.types import Params
from experiments import stages
from experiments.images.build import Run
from experiments.images.pair import Audience
from experiments.images.scorers import CHUNK

NAMES = ("preferred", "avoided")
POOLED = 8
"""By how much the network halves a picture beside its levels."""

Judge = Callable[[np.ndarray], np.ndarray]
"""Maps samples (latents) to logits; above 0 is what the expert is meant to avoid."""


def make_judge(run: Run, pictures: Audience) -> Judge:
    """Trains the judge on pictures of known kind, as the models' decoder shows them."""
    decode = lambda x: 2 * run.pair.decode(x) - 1
    shape = decode(pictures.images[:1]).shape[1:]
    network = ValueUnet(16, (1, 2, 4)[: levels_of(shape)])
    first = jnp.zeros((), jnp.int32)

    def logits(params: Params, pictures: Array) -> Array:
        return jax.vmap(lambda x: apply(network, params, x, first))(pictures)

    section, seed = run.config.judge, run.config.seed
    parts = d.split_episodes(len(pictures.images), seed, (0.8, 0.1, 0.1))

    def kinds(index: np.ndarray) -> dict[str, Array]:
        shown, good = decode(pictures.images[index]), pictures.preferred[index]
        return {"preferred": jnp.asarray(shown[good]), "avoided": jnp.asarray(shown[~good])}

    def draw(data: Any, key: Array) -> Array:
        def some(name: str, key: Array, count: int) -> Array:
            return data[name][jax.random.randint(key, (count,), 0, len(data[name]))]

        return equal_parts(some, NAMES, key, section.batch_size)

    def loss(params: Params, frozen: Any, key: Array, batch: Array) -> tuple:
        del frozen, key
        found = logits(params, batch)
        label = jnp.repeat(jnp.arange(2.0), len(batch) // 2)
        value = optax.sigmoid_binary_cross_entropy(found, label)
        return value.mean(), {"accuracy": ((found > 0) == (label > 0)).mean()}

    held_out = kinds(parts["val"])

    def evaluate(state: Any) -> dict[str, Any]:
        params = jax.device_get(state.ema_params)
        right = [
            ((logits(params, held_out[name]) > 0) == (name == "avoided")).mean()
            for name in NAMES
        ]
        return {"balanced_accuracy": sum(right) / 2}

    params = stages.train_stage(
        run.workdir / "judge",
        Task(init=lambda key: init(network, shape, key), loss=loss, draw=draw),
        section,
        settings={"pictures": len(pictures.images)},
        inputs={"records": report.stage_digest(run.workdir / "records")},
        data=kinds(parts["train"]),
        seed=seed,
        evaluate=evaluate,
    )
    batched = jax.jit(lambda x: logits(params, x))
    return lambda x: d.map_batches(lambda x: np.asarray(batched(decode(x))), CHUNK, x)


def levels_of(shape: tuple[int, ...]) -> int:
    """Levels that a picture can be halved for; at least one.

    Raises:
        ValueError: if its sides are no multiples of 8.
    """
    if any(side % POOLED for side in shape[:2]):
        raise ValueError(f"the judge needs pictures of sides that 8 divides, got {shape}")
    fits = lambda n: not any(side % (POOLED * 2 ** (n - 1)) for side in shape[:2])
    return max(n for n in (1, 2, 3) if fits(n))
