"""Distilling a frozen model into an energy, so that it has one to start from.

Salimans & Ho (2021) parametrise denoisers as gradients of an energy; Thornton et al.
(2025, arXiv 2502.12786) fit such an energy to a trained model instead of to data.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffreward.data import draw
from diffreward.diffusion import from_eps
from diffreward.learn.denoise import Denoiser, init
from diffreward.learn.noise import noise
from diffreward.networks import EnergyDenoiser, apply
from diffreward.reward import unexplained
from diffreward.train import Task
from diffreward.types import Metrics, Params, PRNGKey, Scalar


def distillation_task(teacher: Denoiser, student: EnergyDenoiser, batch_size: int) -> Task:
    """Trains an energy whose gradient is what a frozen model predicts of x_0.

    Errors of x_0 in the weight 1 / sigma^2, which makes them errors of v: the weight of
    the alignment that may start there.

    Returns:
        A task whose ``frozen`` holds the parameters of the teacher, and whose ``data`` are
        the windows whose noised states are visited.
    """
    schedule = teacher.schedule

    def loss(params: Params, frozen: Params, key: PRNGKey, batch: Any) -> tuple:
        x_0 = batch["x_0"]
        mask = jnp.broadcast_to(~teacher.pinned, x_0.shape)
        if teacher.mask_padding:
            mask = mask & batch["valid"][:, :, None]
        eps_fn = teacher.eps_fn(frozen)

        def one(x_t: Array, t: Array, mask: Array) -> tuple[Scalar, Metrics]:
            wanted = from_eps(schedule, "x_0", x_t, t, eps_fn(x_t, t))
            error = jnp.square(apply(student, params, x_t, t) - wanted) * mask
            square = jnp.square(wanted) * mask
            weight = 1 / jnp.square(schedule.sigma[t])
            sums = {"residual": weight * error.sum(), "signal": weight * square.sum()}
            return sums["residual"] / jnp.maximum(mask.sum(), 1), sums

        noised = noise(schedule, key, x_0, teacher.pinned)
        value, metrics = jax.vmap(one)(noised.x_t, noised.t, mask)
        return value.mean(), {"fvu": unexplained(metrics)}

    return Task(
        init=lambda key: init(student, teacher.shape, key),
        loss=loss,
        draw=lambda data, key: draw(data, key, batch_size, teacher.shape[0]),
    )
