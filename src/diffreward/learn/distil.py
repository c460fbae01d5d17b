"""Distilling a frozen model into an energy, so that it has one to start from.

Salimans & Ho (2021) parametrise denoisers as gradients of an energy; Thornton et al.
(2025, arXiv 2502.12786) fit such an energy to a trained model instead of to data.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from diffreward.data import draw
from diffreward.diffusion import Schedule, from_eps
from diffreward.learn.denoise import Denoiser, init
from diffreward.learn.noise import Noised, noise
from diffreward.networks import EnergyDenoiser, apply
from diffreward.reward import unexplained
from diffreward.train import Task
from diffreward.types import AnyArray, EpsFn, Metrics, Params, PRNGKey, Sample, Scalar, Step


def distillation_loss(
    student: EnergyDenoiser,
    params: Params,
    schedule: Schedule,
    x_t: Sample,
    t: Step,
    eps: Sample,
    mask: Bool[AnyArray, "..."] | None = None,
) -> tuple[Scalar, Metrics]:
    """Error of the energy's x_0 at one state, where a model predicted the noise ``eps``.

    Returns:
        The error per entry, and the sums ``residual`` and ``signal`` of its share.
    """
    wanted = from_eps(schedule, "x_0", x_t, t, eps)
    counted = jnp.ones(x_t.shape) if mask is None else mask.astype(x_t.dtype)
    error = jnp.square(apply(student, params, x_t, t) - wanted) * counted
    weight = 1 / jnp.square(schedule.sigma[t])
    sums = {
        "residual": weight * error.sum(),
        "signal": weight * jnp.sum(jnp.square(wanted) * counted),
    }
    return sums["residual"] / jnp.maximum(counted.sum(), 1), sums


def distillation(
    student: EnergyDenoiser,
    params: Params,
    eps_fn: EpsFn,
    schedule: Schedule,
    noised: Noised,
    mask: Bool[AnyArray, "batch ..."] | None = None,
) -> tuple[Scalar, Metrics]:
    """Mean error of the energy's x_0 against a model's, and its share unexplained.

    In the weight 1 / sigma^2, which makes errors of x_0 errors of v: the weight of the
    alignment that may start there.

    Args:
        student: the energy.
        params: its parameters.
        eps_fn: the model.
        schedule: noise levels of both.
        noised: states of the batch.
        mask: entries that count; all by default.
    """

    def one(x_t: Array, t: Array, mask: Any) -> tuple[Scalar, Metrics]:
        eps = eps_fn(x_t, t)
        return distillation_loss(student, params, schedule, x_t, t, eps, mask)

    axes = (0, 0, None if mask is None else 0)
    value, metrics = jax.vmap(one, axes)(noised.x_t, noised.t, mask)
    return value.mean(), {"fvu": unexplained(metrics)}


def distillation_task(teacher: Denoiser, student: EnergyDenoiser, batch_size: int) -> Task:
    """Trains an energy whose gradient is what a frozen model predicts of x_0.

    Returns:
        A task whose ``frozen`` holds the parameters of the teacher, and whose ``data`` are
        the windows whose noised states are visited.
    """

    def loss(params: Params, frozen: Params, key: PRNGKey, batch: Any) -> tuple:
        x_0, schedule = batch["x_0"], teacher.schedule
        mask = jnp.broadcast_to(~teacher.pinned, x_0.shape)
        if teacher.mask_padding:
            mask = mask & batch["valid"][:, :, None]
        noised = noise(schedule, key, x_0, teacher.pinned)
        return distillation(student, params, teacher.eps_fn(frozen), schedule, noised, mask)

    return Task(
        init=lambda key: init(student, teacher.shape, key),
        loss=loss,
        draw=lambda data, key: draw(data, key, batch_size, teacher.shape[0]),
    )
