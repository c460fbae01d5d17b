"""What scores samples: the reward, and what it has to be better than.

The training-free log ratio asks both models how well they denoise a sample; a classifier
tells their samples apart. Each is a profile: one number per sample and noise level.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from configs.common import ConfigDict
from diffreward import data as d
from diffreward import report, reward
from diffreward.diffusion import Remembering, Schedule, ddim_levels, from_beta
from diffreward.learn import classification, equal_parts, init
from diffreward.networks import apply
from diffreward.reward import Pair
from diffreward.train import Task
from diffreward.types import EpsFn, Params, RewardFn
from experiments import stages
from experiments.images.build import NETWORKS, Run
from experiments.images.pair import ImagePair

CHUNK = 64

Profile = Callable[[np.ndarray, tuple[Array, ...]], np.ndarray]
"""Maps clean samples (count, *shape) and their contexts to scores (count, levels)."""


def chain_levels(config: ConfigDict, pair: ImagePair) -> np.ndarray:
    """Noise levels that were recorded, least noise first: no other is trained."""
    levels = ddim_levels(pair.schedule.num_steps, config.records.levels)
    return np.ascontiguousarray(levels[::-1]).astype(np.int32)


def reward_profile(run: Run, params: Params) -> Profile:
    """The learned reward, at every recorded level; it reads what it was trained with."""
    count = 1 if run.config.rewards.prompt else 0
    return _noised(run, lambda context: run.reward.reward_fn(params, *context[:count]))


def classifier_profile(run: Run, classifier: tuple[Any, Params]) -> Profile:
    """The logit of a classifier of both models' samples, at every recorded level."""
    network, params = classifier
    return _noised(run, lambda _: lambda x_t, t: apply(network, params, x_t, t))


def ratio_profile(run: Run) -> Profile | None:
    """The training-free log ratio, in nats per level; None if there is no such thing.

    Of ``audit.ratio_levels`` of the recorded levels, evenly spaced: their quadrature is
    coarse, but asks large models less often. Contexts are those of the whole pair.
    """
    pair, config = run.pair, run.config
    levels = chain_levels(config, pair)
    count = min(config.audit.ratio_levels, len(levels))
    chosen = jnp.asarray(levels[np.linspace(0, len(levels) - 1, count).round().astype(int)])
    coarse = coarser(pair.schedule, chosen)
    key = jax.random.key(config.seed + 1)  # every sample meets the same noises
    one = jax.tree.map(lambda c: c[0], pair.contexts([0]))
    if outside_chain(pair.models(pair.params, one)[1]) is None:
        return None

    def value(params: Params, x_0: Array, context: tuple[Array, ...]) -> Array:
        base, expert = pair.models(params, context)
        other = outside_chain(expert)
        assert other is not None  # as above, where it does not depend on values
        asked = Pair(
            lambda x, i: base(x, chosen[i]), lambda x, i: other(x, chosen[i]), coarse
        )
        return reward.log_ratio(asked, key, x_0)

    batched = jax.jit(jax.vmap(value, in_axes=(None, 0, 0)))
    chunk = max(1, config.records.batch_size // count)

    def profile(x_0: np.ndarray, context: tuple[Array, ...]) -> np.ndarray:
        ask = lambda x, c: np.asarray(batched(pair.params, x, c))
        return d.map_batches(ask, chunk, x_0, context)

    return profile


def coarser(schedule: Schedule, levels: Array) -> Schedule:
    """The schedule of some levels alone, least noise first."""
    kept = np.asarray(schedule.alpha_bar, np.float64)[np.asarray(levels)]
    return from_beta(1 - kept / np.concatenate([[1.0], kept[:-1]]))


def outside_chain(model: EpsFn | Remembering) -> EpsFn | None:
    """A prediction as a function of (x_t, t) alone."""
    return model.alone if isinstance(model, Remembering) else model


def _noised(run: Run, of_context: Callable[[tuple[Array, ...]], RewardFn]) -> Profile:
    """Scores of noised samples, means over noises.

    Every sample meets the same noises, so that their influence cancels between samples.
    """
    schedule, levels = run.pair.schedule, chain_levels(run.config, run.pair)
    size = (len(levels), run.config.audit.noises, *run.pair.shape)
    eps = jax.random.normal(jax.random.key(run.config.seed + 1), size)

    def value(x_0: Array, context: tuple[Array, ...]) -> Array:
        rho = of_context(context)
        # One level at a time: networks of images are large.
        at = lambda row: reward.level_values(rho, schedule, x_0, *row).mean()
        return jax.lax.map(at, (jnp.asarray(levels), eps))

    batched = jax.jit(jax.vmap(value))

    def profile(x_0: np.ndarray, context: tuple[Array, ...]) -> np.ndarray:
        return d.map_batches(batched, CHUNK, x_0, context)

    return profile


def train_classifier(run: Run) -> tuple[Any, Params]:
    """A classifier of both models' samples, and its parameters; a stage of its own.

    It is trained on the chains' ends, of the requests of training, noised to any level.
    """
    config, shape = run.config, run.pair.shape
    section = config.classifier
    like = "unet" if config.rewards.network in ("unet", "value_unet") else "scalar"
    rewards = config.rewards.copy_and_resolve_references()
    with rewards.unlocked():
        rewards.prompt = False
    network = NETWORKS[like].make(rewards, run.pair)

    def task(batch_size: int) -> Task:
        def loss(params: Params, frozen: Any, key: Array, batch: Any) -> tuple:
            del frozen
            value_fn = lambda x, t: apply(network, params, x, t)
            return classification(value_fn, run.pair.schedule, key, batch)

        def some(name: str, key: Array, count: int, data: Any) -> Array:
            return data[name][jax.random.randint(key, (count,), 0, len(data[name]))]

        def draw(data: Any, key: Array) -> Array:
            of_set = lambda name, key, count: some(name, key, count, data)
            return equal_parts(of_set, ("base", "expert"), key, batch_size)

        return Task(init=lambda key: init(network, shape, key), loss=loss, draw=draw)

    probe = task(512)
    held_out = jax.jit(probe.draw)(ends(run.shards["val"]), jax.random.key(0))
    measure = jax.jit(lambda p: probe.loss(p, None, jax.random.key(1), held_out))

    def evaluate(state: Any) -> dict[str, Any]:
        loss, others = measure(jax.device_get(state.ema_params))
        return {"loss": loss, **others}

    params = stages.train_stage(
        run.workdir / "classifier",
        task(section.batch_size),
        section,
        settings={"network": like, **{k: rewards[k] for k in ("widths", "width", "depth")}},
        inputs={"records": report.stage_digest(run.workdir / "records")},
        data=ends(run.shards["train"]),
        seed=config.seed,
        evaluate=evaluate,
    )
    return network, params


def ends(shards: d.Shards) -> dict[str, Array]:
    """Where the chains of both models end."""
    parts = [d.read_shard(shards, i) for i in range(shards.count)]
    x_0, expert = (
        np.concatenate([p[name] for p in parts]) for name in ("x_0", "follows_expert")
    )
    found = {"base": x_0[~expert], "expert": x_0[expert]}
    return {n: jnp.asarray(x, jnp.float32) for n, x in found.items()}
