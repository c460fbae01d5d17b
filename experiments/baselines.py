"""Tasks of what rewards are compared with: a discriminator, a network of true returns."""

from typing import Any

import jax
from jax import Array

from diffreward.data import draw
from diffreward.learn import Denoiser, classification, equal_parts, init, regression
from diffreward.networks import apply
from diffreward.train import Task
from diffreward.types import Params, RewardFn


def scalar_fn(network: Any, params: Params) -> RewardFn:
    """What a baseline steers along: a logit, or a return in standard deviations."""
    return lambda x_t, t: apply(network, params, x_t, t)


def discriminator_task(model: Denoiser, network: Any, batch_size: int) -> Task:
    """Tells noised expert windows from noised base windows, in equal numbers."""

    def loss(params: Params, frozen: Any, key: Array, batch: Any) -> tuple:
        del frozen
        value_fn, x_0 = scalar_fn(network, params), batch["x_0"]
        return classification(value_fn, model.schedule, key, x_0, model.pinned)

    def both(data: Any, key: Array) -> Any:
        of_set = lambda name, key, count: draw(data[name], key, count, model.shape[0])
        return equal_parts(of_set, ("base", "expert"), key, batch_size)

    return Task(init=lambda key: init(network, model.shape, key), loss=loss, draw=both)


def value_task(model: Denoiser, network: Any, batch_size: int) -> Task:
    """Regresses the return to go of a window on its noised steps (Diffuser's guide).

    ``data`` are windows with the return to go as their last column.
    """

    def loss(params: Params, frozen: Any, key: Array, batch: Any) -> tuple:
        del frozen
        value_fn = scalar_fn(network, params)
        x_0, target = batch["x_0"][..., :-1], batch["x_0"][:, 0, -1]
        return regression(value_fn, model.schedule, key, x_0, target, model.pinned)

    def windows(data: Any, key: Array) -> Any:
        return draw(data, key, batch_size, model.shape[0])

    return Task(init=lambda key: init(network, model.shape, key), loss=loss, draw=windows)


def members(params: Params) -> list[Params]:
    """Parameters of every member of a stacked population."""
    count = jax.tree.leaves(params)[0].shape[0]
    return [jax.tree.map(lambda x, i=i: x[i], params) for i in range(count)]
