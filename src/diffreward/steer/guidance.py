"""Guidance: a function from EpsFn to EpsFn, so no sampler knows that it is guided.

With rho in score units (a log density ratio), the eps-space form at scale 1 is the
expert exactly. The two other spaces are the forms in common use; in each the same scale
means less (for two unit Gaussians 0.72 and 0.65 of the shift with 20 cosine steps), so
a scale is only meaningful together with its space.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffreward.diffusion import Schedule, eps_of_mean, from_eps, posterior_mean
from diffreward.names import choose
from diffreward.types import EpsFn, Mask, RewardFn, Scalar, Step

Space = Literal["eps", "mean", "input"]
"""Where the gradient of a reward is added: to the noise, the mean, or the input."""


def guide(
    eps_fn: EpsFn,
    reward_fn: RewardFn,
    schedule: Schedule,
    scale: Scalar | float,
    *,
    space: Space = "eps",
    scale_by_variance: bool = True,
    t_stop: Step | int = 0,
    pinned: Mask | None = None,
) -> EpsFn:
    """Steers a model along the gradient of a reward.

    Args:
        eps_fn: noise prediction of the base.
        reward_fn: scalar reward of (x_t, t).
        schedule: noise schedule of the base.
        scale: guidance strength; 0 returns the base's values exactly.
        space: ``eps`` subtracts ``scale sigma grad rho`` from the noise prediction
            (Dhariwal & Nichol 2021, algorithm 2); ``mean`` adds ``scale v grad rho`` to
            the mean of the ancestral step (their algorithm 1), v the posterior variance;
            ``input`` moves x_t by the same amount before the ordinary step, as Diffuser
            does. ``mean`` and ``input`` are exact rewrites for the ``ddpm`` sampler only.
        scale_by_variance: False leaves v out (the paper's rollouts, whose reward has
            absorbed it); not meaningful in ``eps`` space.
        t_stop: no guidance at levels below it.
        pinned: conditioned entries, never moved.

    Raises:
        ValueError: for an unknown space.
    """
    choose("guidance space", space, get_args(Space))

    def gradient(x_t: Array, t: Array) -> Array:
        g = jnp.where(t >= t_stop, scale, 0.0) * jax.grad(reward_fn)(x_t, t)
        return g if pinned is None else jnp.where(pinned, 0.0, g)

    def step_size(t: Array) -> Array:
        return schedule.posterior_variance[t] if scale_by_variance else jnp.ones(())

    def guided(x_t: Array, t: Array) -> Array:
        if space == "eps":
            return eps_fn(x_t, t) - schedule.sigma[t] * gradient(x_t, t)
        shift = step_size(t) * gradient(x_t, t)
        if space == "mean":
            moved, mean_shift = x_t, shift
        else:
            # With eps held fixed, moving x_t moves the mean of the step linearly.
            moved = x_t + shift
            x_0_shift = from_eps(schedule, "x_0", shift, t, jnp.zeros_like(shift))
            mean_shift = posterior_mean(schedule, x_0_shift, shift, t)
        # Only the shift takes the (linear) way from mean to eps: a zero shift changes
        # no bit of the prediction.
        zero = jnp.zeros_like(x_t)
        return eps_fn(moved, t) + eps_of_mean(schedule, mean_shift, zero, t)

    return guided


def guide_by_difference(
    base: EpsFn,
    expert: EpsFn,
    scale: Float[Array, ""] | float,
    *,
    pinned: Mask | None = None,
) -> EpsFn:
    """Steers with the score difference itself: the upper bound for any reward.

    Scale 0 is the base, 1 the expert; values beyond extrapolate (autoguidance).
    """

    def guided(x_t: Array, t: Array) -> Array:
        eps = base(x_t, t)
        step = scale * (expert(x_t, t) - eps)
        return eps + (step if pinned is None else jnp.where(pinned, 0.0, step))

    return guided
