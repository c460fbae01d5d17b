"""Sequential Monte Carlo along the denoising chain: steering without a bias of its own.

Particles follow the base (or any proposal, such as the guided base) and carry weights,
so that at every level they represent the base's chain tilted by ``exp(scale * rho)``
(twisted diffusion sampler, Wu et al. 2023; Feynman-Kac steering, Singhal et al. 2025).
Guidance approximates the tilted law with a drift; here more particles are always nearer.
The tilt is of the samples at level 0, which still carry its noise. The last step, to the
clean sample, is the base's: it takes as much noise off as the base would, and where the
expert is as narrow as that noise, the clean samples are wider than the expert's.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Bool, Float, Int

from diffreward.diffusion import Condition, Schedule, ancestral_mean, draw_noise, pin
from diffreward.types import EpsFn, PRNGKey, RewardFn, Step
from diffreward.weights import effective_sample_size


class Particles(NamedTuple):
    """Weighted samples after the last step, and how the weights behaved on the way."""

    x_0: Float[Array, "particles ..."]
    log_weights: Float[Array, " particles"]
    """Normalised: their exponentials sum to one."""
    value: Float[Array, " particles"]
    """Reward at level 0, which the samples are tilted by."""
    ess: Float[Array, " num_steps"]
    """Effective sample size on arriving at each level, before resampling."""
    resampled: Bool[Array, " num_steps"]
    """Levels at which the particles were resampled."""
    log_normaliser: Float[Array, ""]
    """Estimate of log E[exp(scale rho(x, 0))] over the base's samples at level 0; its
    exponential is unbiased."""


def systematic_resample(
    key: PRNGKey, log_weights: Float[Array, " particles"]
) -> Int[Array, " particles"]:
    """Indices in which particle i occurs N w_i times, rounded up or down.

    One uniform number shifts a comb of N teeth over the cumulated weights (Kitagawa,
    1996).
    """
    count = log_weights.shape[0]
    edges = jnp.cumsum(jax.nn.softmax(log_weights))
    teeth = (jnp.arange(count, dtype=jnp.float32) + jax.random.uniform(key)) / count
    # Rounding may leave the last edge just below the last tooth.
    return jnp.searchsorted(edges, teeth).clip(0, count - 1)


def smc_sample(
    eps_fn: EpsFn,
    reward_fn: RewardFn,
    schedule: Schedule,
    key: PRNGKey,
    shape: tuple[int, ...],
    num_particles: int,
    *,
    scale: Float[Array, ""] | float = 1.0,
    proposal: EpsFn | None = None,
    condition: Condition | None = None,
    threshold: float = 0.5,
) -> Particles:
    """Samples the base tilted by a reward.

    Arriving at level t multiplies a weight by
    ``exp(scale (rho(x_t, t) - rho(x_{t+1}, t+1)))``, and by the ratio of the two
    transition densities if the particles follow a proposal. The product telescopes:
    the final weights are those of ``rho`` at level 0 whatever it says on the way, where
    it only decides which particles are kept. With ``threshold=0`` nothing is resampled
    and this is importance sampling of plain draws, whose heaviest is the best of N.

    Args:
        eps_fn: noise prediction of the base.
        reward_fn: reward of (x_t, t), nats.
        schedule: noise schedule.
        key: key of the whole cloud.
        shape: shape of one sample.
        num_particles: N.
        scale: of the reward. At 1 the particles at level 0 have the expert's noised law,
            as far as the base's chain has the base's; the last step is the base's.
        proposal: noise prediction the particles follow instead of the base's. The
            nearer to the tilted law, the more even the weights.
        condition: entries to hold.
        threshold: resample if the effective sample size is below this share of N.

    Raises:
        ValueError: for a number of particles or a threshold out of range, or a chain that
            stops before noise.
    """
    if num_particles < 1 or not 0 <= threshold <= 1:
        raise ValueError(
            f"smc_sample: num_particles={num_particles} must be at least 1 and "
            f"threshold={threshold} in [0, 1]"
        )
    start_key, chain_key = jax.random.split(key)
    value_at = lambda t: jax.vmap(lambda x: reward_fn(x, t))
    log_count = jnp.log(jnp.float32(num_particles))

    def weigh(
        x: Array, gain: Array, log_w: Array, log_z: Array, value: Array, level_key: Array
    ) -> tuple[tuple[Array, Array, Array, Array], tuple[Array, Array]]:
        """Multiplies the weights, and resamples if they have become too uneven."""
        log_w = log_w + gain
        ess = effective_sample_size(log_w)
        uneven = ess < threshold * num_particles
        chosen = systematic_resample(level_key, log_w)
        chosen = jnp.where(uneven, chosen, jnp.arange(num_particles))
        log_z = jnp.where(uneven, log_z + logsumexp(log_w) - log_count, log_z)
        log_w = jnp.where(uneven, jnp.zeros_like(log_w), log_w)
        return (x[chosen], log_w, log_z, value[chosen]), (ess, uneven)

    def move(key: PRNGKey, x: Array, t: Step) -> tuple[Array, Array]:
        """One ancestral step and the log ratio of base to proposal density."""
        follow = eps_fn if proposal is None else proposal
        std = jnp.sqrt(schedule.posterior_variance[t])
        mean = ancestral_mean(follow, schedule, x, t)
        moved = pin(mean + std * jax.random.normal(key, x.shape), condition)
        if proposal is None:
            return moved, jnp.zeros(())
        free = jnp.ones(shape, bool) if condition is None else ~condition.pinned
        apart = lambda m: jnp.where(free, (moved - m) / std, 0.0)
        base = apart(ancestral_mean(eps_fn, schedule, x, t))
        return moved, 0.5 * jnp.sum(jnp.square(apart(mean)) - jnp.square(base))

    def step(carry: tuple, t: Step) -> tuple[tuple, tuple]:
        x, log_w, log_z, value = carry
        move_key, level_key = jax.random.split(jax.random.fold_in(chain_key, t))
        keys = jax.random.split(move_key, num_particles)
        x, log_ratio = jax.vmap(lambda k, y: move(k, y, t))(keys, x)
        new = value_at(t - 1)(x)
        gain = scale * (new - value) + log_ratio
        return weigh(x, gain, log_w, log_z, new, level_key)

    top = jnp.int32(schedule.num_steps - 1)
    draw = lambda k: pin(draw_noise(schedule, k, shape), condition)
    x = jax.vmap(draw)(jax.random.split(start_key, num_particles))
    value = value_at(top)(x)
    nothing = jnp.zeros(num_particles)
    key_at_top = jax.random.fold_in(chain_key, schedule.num_steps)
    carry, first = weigh(x, scale * value, nothing, jnp.zeros(()), value, key_at_top)
    # Level t leads to t - 1; the step from level 0 to the clean sample has no noise.
    carry, rest = jax.lax.scan(step, carry, jnp.arange(schedule.num_steps - 1, 0, -1))
    x, log_w, log_z, value = carry
    last = lambda y: ancestral_mean(eps_fn, schedule, y, jnp.int32(0))
    x_0 = jax.vmap(lambda y: pin(last(y), condition))(x)
    total = logsumexp(log_w)
    by_level = lambda a, b: jnp.concatenate([a[None], b])[::-1]
    return Particles(
        x_0=x_0,
        log_weights=log_w - total,
        value=value,
        ess=by_level(first[0], rest[0]),
        resampled=by_level(first[1], rest[1]),
        log_normaliser=log_z + total - log_count,
    )
