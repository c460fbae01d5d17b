"""Training-free log density ratio of two diffusion models.

The exact discrete-time variational bound of Kingma et al. (2021), equation 13: the
bounds of two models on the same data differ by their denoising errors, weighted with
the decrease of the signal-to-noise ratio. SMILING, DRAIL, Diffusion-DPO's implicit
reward and loss-based membership inference use the same gap with other weights.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffreward.diffusion import Condition, from_eps, pin, q_sample
from diffreward.diffusion.schedule import Schedule
from diffreward.reward.pair import Pair
from diffreward.types import EpsFn, Mask, PRNGKey, Sample


def elbo_weights(schedule: Schedule) -> Float[Array, " num_steps"]:
    """Weight of ||x_0 - x0hat(x_t)||^2 in the bound, per level, in nats.

    Half the drop of the signal-to-noise ratio from level t-1 to t. Level 0 has weight
    snr_0 / 2: reconstruction with a Gaussian of the noise left at that level.
    """
    drop = jnp.concatenate([schedule.snr[:1], schedule.snr[:-1] - schedule.snr[1:]])
    return drop / 2


def log_ratio(
    pair: Pair,
    key: PRNGKey,
    x_0: Sample,
    *,
    pinned: Mask | None = None,
    mask: Mask | None = None,
    num_noises: int = 1,
) -> Float[Array, " num_steps"]:
    """Estimate of log p_expert(x_0) - log p_base(x_0), split over noise levels.

    Args:
        pair: the two models.
        key: key of the noises, shared by both models to cut the variance.
        x_0: clean trajectory.
        pinned: conditioned entries; the ratio is then conditional on them.
        mask: entries that count (True) beside the pinned ones; all by default.
        num_noises: noises averaged per level.

    Returns:
        Nats per level; their sum is the log ratio of the two bounds.
    """
    schedule = pair.schedule
    condition = None if pinned is None else Condition(pinned, x_0)
    counted = jnp.ones(x_0.shape) if mask is None else mask.astype(x_0.dtype)

    def error(eps_fn: EpsFn, x_t: Array, t: Array) -> Array:
        x_0_hat = from_eps(schedule, "x_0", x_t, t, eps_fn(x_t, t))
        return jnp.sum(jnp.square(pin(x_0_hat, condition) - x_0) * counted)

    def gap(t: Array, noise_key: Array) -> Array:
        eps = jax.random.normal(noise_key, x_0.shape)
        x_t = pin(q_sample(schedule, x_0, t, eps), condition)
        return error(pair.base, x_t, t) - error(pair.expert, x_t, t)

    levels = jnp.arange(schedule.num_steps)
    keys = jax.random.split(key, (schedule.num_steps, num_noises))
    gaps = jax.vmap(lambda t, ks: jax.vmap(lambda k: gap(t, k))(ks).mean())(levels, keys)
    return elbo_weights(schedule) * gaps
