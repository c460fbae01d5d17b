"""What rewards are compared with: a discriminator, and a network of true returns."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from configs.common import ConfigDict
from diffreward import data as d
from diffreward.diffusion import pin, q_sample
from diffreward.networks import ScalarReward
from diffreward.train import Task
from diffreward.types import Params, RewardFn
from experiments import tasks


def build_scalar(config: ConfigDict) -> Any:
    """The network of both baselines."""
    return ScalarReward(tasks.trunk(config))


def scalar_fn(network: Any, params: Params) -> RewardFn:
    """What a baseline steers along: a logit, or a return in standard deviations."""
    return lambda x_t, t: tasks.apply(network, params, x_t, t)


def discriminator_task(model: tasks.Model, network: Any, batch_size: int) -> Task:
    """Tells noised expert windows from noised base windows, in equal numbers.

    Its logit estimates log p_expert / p_base at every noise level, and its gradient
    steers. (The published one sees unequal classes and steers along the sigmoid.)
    """

    def loss(params: Params, frozen: Any, key: Array, batch: Any) -> tuple:
        del frozen
        x_t, t = noised(model, key, batch["x_0"])
        logit = jax.vmap(lambda x, t: tasks.apply(network, params, x, t))(x_t, t)
        value = optax.sigmoid_binary_cross_entropy(logit, batch["label"])
        accuracy = (logit > 0) == (batch["label"] > 0.5)
        return value.mean(), {"accuracy": accuracy.mean()}

    def draw(data: Any, key: Array) -> Any:
        half = batch_size // 2
        parts = [
            d.draw(data[name], jax.random.fold_in(key, i), half, model.shape[0])["x_0"]
            for i, name in enumerate(("base", "expert"))
        ]
        return {"x_0": jnp.concatenate(parts), "label": jnp.repeat(jnp.arange(2.0), half)}

    return Task(init=_init(model, network), loss=loss, draw=draw)


def value_task(model: tasks.Model, network: Any, batch_size: int) -> Task:
    """Regresses the return to go of a window on its noised steps (Diffuser's guide).

    ``data`` are windows with the return to go as their last column.
    """

    def loss(params: Params, frozen: Any, key: Array, batch: Any) -> tuple:
        del frozen
        x_0, target = batch["x_0"][..., :-1], batch["x_0"][:, 0, -1]
        x_t, t = noised(model, key, x_0)
        value = jax.vmap(lambda x, t: tasks.apply(network, params, x, t))(x_t, t)
        error = jnp.square(value - target)
        return error.mean(), {"r2": 1 - error.mean() / jnp.var(target)}

    def draw(data: Any, key: Array) -> Any:
        return d.draw(data, key, batch_size, model.shape[0])

    return Task(init=_init(model, network), loss=loss, draw=draw)


def noised(model: tasks.Model, key: Array, x_0: Array) -> tuple[Array, Array]:
    """Windows at random levels, with the condition shown clean."""
    t, eps = tasks.draw_noise(key, x_0, model.schedule)
    x_t = jax.vmap(lambda x, t, e: q_sample(model.schedule, x, t, e))(x_0, t, eps)
    return jax.vmap(lambda x_t, x_0: pin(x_t, model.condition(x_0)))(x_t, x_0), t


def with_returns(episodes: d.Episodes, discount: float) -> d.Episodes:
    """The episodes with the discounted return to go as one more observation."""
    to_go = np.zeros(len(episodes.rewards), np.float64)
    for start, length in zip(episodes.starts, episodes.lengths, strict=True):
        value = 0.0
        for row in range(start + length - 1, start - 1, -1):
            value = episodes.rewards[row] + discount * value
            to_go[row] = value
    column = to_go[:, None].astype(np.float32)
    observations = np.concatenate([episodes.observations, column], axis=1)
    return episodes._replace(observations=observations)


def _init(model: tasks.Model, network: Any) -> Any:
    x, t = jnp.zeros(model.shape), jnp.zeros((), jnp.int32)
    return lambda key: network.init(key, x, t)
