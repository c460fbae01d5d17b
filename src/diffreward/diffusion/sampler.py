"""Samplers: one step is a pure function, a chain is a ``lax.scan`` over levels.

They see only an EpsFn, so a guided model is sampled like any other.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from diffreward.diffusion.condition import Condition, pin
from diffreward.diffusion.process import ancestral_mean, from_eps
from diffreward.diffusion.schedule import Schedule
from diffreward.diffusion.start import draw_noise
from diffreward.names import choose
from diffreward.types import EpsFn, PRNGKey, Sample, Step

Sampler = Literal["ddpm", "ddim"]


def ddpm_step(
    eps_fn: EpsFn,
    schedule: Schedule,
    key: PRNGKey,
    x_t: Sample,
    t: Step,
) -> Sample:
    """One ancestral step x_t -> x_{t-1}; Ho et al. (2020), algorithm 2.

    The variance is the posterior's, which is zero at t=0: the last step returns its mean.
    """
    noise = jax.random.normal(key, x_t.shape)
    std = jnp.sqrt(schedule.posterior_variance[t])
    return ancestral_mean(eps_fn, schedule, x_t, t) + std * noise


def ddim_step(
    eps_fn: EpsFn,
    schedule: Schedule,
    key: PRNGKey,
    x_t: Sample,
    t: Step,
    t_next: Step,
    eta: float = 0.0,
) -> Sample:
    """One DDIM step to level ``t_next`` (-1: clean); Song et al. (2021), equation 12."""
    eps = eps_fn(x_t, t)
    x_0 = from_eps(schedule, "x_0", x_t, t, eps)
    ab, ab_next = schedule.alpha_bar[t], schedule.alpha_bar[jnp.maximum(t_next, 0)]
    ab_next = jnp.where(t_next < 0, 1.0, ab_next)
    std = eta * jnp.sqrt((1 - ab_next) / (1 - ab) * (1 - ab / ab_next))
    direction = jnp.sqrt(jnp.maximum(1 - ab_next - std**2, 0.0)) * eps
    noise = std * jax.random.normal(key, x_t.shape)
    return jnp.sqrt(ab_next) * x_0 + direction + noise


def ddim_levels(num_steps: int, num_evaluations: int) -> Int[np.ndarray, " levels"]:
    """Evenly spaced levels from T-1 down to 0.

    Raises:
        ValueError: if more evaluations than levels are asked for.
    """
    if not 1 <= num_evaluations <= num_steps:
        raise ValueError(
            f"num_evaluations must be in [1, {num_steps}], got {num_evaluations}"
        )
    if num_evaluations == 1:
        return np.array([num_steps - 1])
    return np.linspace(num_steps - 1, 0, num_evaluations).round().astype(int)


def sample(
    eps_fn: EpsFn,
    schedule: Schedule,
    key: PRNGKey,
    shape: tuple[int, ...],
    *,
    condition: Condition | None = None,
    method: Sampler = "ddpm",
    num_evaluations: int | None = None,
    eta: float = 0.0,
    x_T: Sample | None = None,
) -> Sample:
    """Draws one sample of the given shape from x_T ~ N(0, I).

    Args:
        eps_fn: noise prediction, guided or not.
        schedule: noise schedule.
        key: key of this sample.
        shape: shape of the sample.
        condition: entries to hold, before the first and after every step.
        method: ``ddpm`` visits every level; ``ddim`` may visit fewer.
        num_evaluations: number of DDIM levels; all by default.
        eta: DDIM noise, 0 deterministic, 1 as noisy as ``ddpm``.
        x_T: state of the last level to start from instead of noise, such as a noised
            sample where the chain stops before noise.

    Raises:
        ValueError: for an unknown method, fewer evaluations with ``ddpm``, or no ``x_T``
            for a chain that stops before noise.
    """
    num_steps = schedule.num_steps
    if choose("method", method, get_args(Sampler)) == "ddpm":
        if num_evaluations not in (None, num_steps):
            raise ValueError("ddpm visits every level; use method='ddim' to skip some")
        levels = np.arange(num_steps)[::-1]
    else:
        levels = ddim_levels(num_steps, num_evaluations or num_steps)
    pairs = jnp.asarray(np.stack([levels, np.append(levels[1:], -1)], 1), jnp.int32)
    start_key, chain_key = jax.random.split(key)

    def step(x_t: Array, pair: Array) -> tuple[Array, None]:
        t, t_next = pair
        step_key = jax.random.fold_in(chain_key, t)
        if method == "ddpm":
            x_t = ddpm_step(eps_fn, schedule, step_key, x_t, t)
        else:
            x_t = ddim_step(eps_fn, schedule, step_key, x_t, t, t_next, eta)
        return pin(x_t, condition), None

    start = draw_noise(schedule, start_key, shape) if x_T is None else x_T
    return jax.lax.scan(step, pin(start, condition), pairs)[0]
