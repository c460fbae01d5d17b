"""How far steering moves a model: KL between the steered and the plain chain."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffreward.diffusion import Condition, Schedule, ddpm_step, draw_noise, pin
from diffreward.types import EpsFn, PRNGKey


def chain_kl(
    base: EpsFn,
    guided: EpsFn,
    schedule: Schedule,
    key: PRNGKey,
    shape: tuple[int, ...],
    condition: Condition | None = None,
) -> Float[Array, " num_steps"]:
    """KL(guided || base) of the two ancestral chains, in nats, from one guided chain.

    Both chains start at the same noise and take Gaussian steps of equal variance, so by
    the chain rule the divergence is the mean, over guided chains, of
    ``sum_t ||mean_guided - mean_base||^2 / (2 posterior_variance_t)``. One chain gives an
    unbiased estimate; average over keys.

    The last step (level 0) draws no noise and is left out: the chains end at its input.
    The sum bounds the divergence of these ends from above. With exact models and many
    levels it tends to that of the two data laws.

    Args:
        base: noise prediction of the base.
        guided: noise prediction of the steered model.
        schedule: their noise schedule.
        key: key of the chain, used as by ``diffusion.sample``.
        shape: shape of one sample.
        condition: entries to hold; they do not count.

    Returns:
        Nats per level, entry 0 being zero; their sum is the estimate.

    Raises:
        ValueError: if the chain stops before noise.
    """
    start_key, chain_key = jax.random.split(key)
    free = True if condition is None else ~condition.pinned

    def step(x_t: Array, t: Array) -> tuple[Array, Array]:
        eps = guided(x_t, t)
        # The means differ by a multiple of the predictions' difference.
        x_0_gap = schedule.sigma[t] / schedule.sqrt_alpha_bar[t] * (base(x_t, t) - eps)
        gap = schedule.posterior_x_0[t] * jnp.where(free, x_0_gap, 0.0)
        variance = jnp.where(t > 0, schedule.posterior_variance[t], jnp.inf)
        step_key = jax.random.fold_in(chain_key, t)
        x_next = ddpm_step(lambda *_: eps, schedule, step_key, x_t, t)
        return pin(x_next, condition), jnp.sum(jnp.square(gap)) / (2 * variance)

    x_T = pin(draw_noise(schedule, start_key, shape), condition)
    levels = jnp.arange(schedule.num_steps)[::-1]
    return jax.lax.scan(step, x_T, levels)[1][::-1]
