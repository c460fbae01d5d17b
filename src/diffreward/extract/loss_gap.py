"""The gap of two models' denoising errors, with the weights of the literature.

One primitive: noise x_t further to every level s above t and compare how well the two
models predict that noise. Relative to x_t the level s has the signal share
a^2 = alpha_bar_s / alpha_bar_t, and the noise prediction is sqrt(1 - a^2) / sigma_s times
that of the model. At t = 0 the sample is as good as clean.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffreward.diffusion import Schedule, hold, pin
from diffreward.extract.potential import line_integral
from diffreward.extract.settings import LossGap
from diffreward.extract.source import Source, pair_of
from diffreward.extract.training import untrained
from diffreward.names import choose
from diffreward.reward import Pair, Reward, integral_weights
from diffreward.types import EpsFn, Mask, Sample, Scalar, Step

Levels = Float[Array, " num_steps"]


class Weighting(NamedTuple):
    """How the gaps of the levels above t are added up."""

    weights: Callable[[Levels, Array, float], Levels]
    """Of (a^2 of every level, which levels lie above t, beta)."""
    per_entry: bool
    """Whether errors are means over entries; sums otherwise."""
    log_ratio: bool
    """Whether the sum estimates a log ratio, which the last level completes."""


def elbo(a2: Levels, above: Array, beta: float) -> Levels:
    """Difference of the variational bounds (Kingma et al., 2021, equation 13).

    Half the drop of the relative signal-to-noise ratio, on errors of x_t; the first
    level above t is the reconstruction. As errors of noise they are divided by it.
    """
    del beta
    snr = a2 / jnp.maximum(1 - a2, 1e-12)
    first = above & ~jnp.roll(above, 1).at[0].set(False)
    before = jnp.where(first, 2 * snr, jnp.roll(snr, 1))
    return jnp.where(above, (before - snr) / snr, 0.0) / 2


def integral(a2: Levels, above: Array, beta: float) -> Levels:
    """Log density ratio as an integral over noise (Kong et al., 2023, equation 9).

    Up to the last level, which :func:`line_integral` completes.
    """
    del beta
    return integral_weights(a2, above, whole=False)


def uniform(a2: Levels, above: Array, beta: float) -> Levels:
    """Mean over levels (SMILING; Wu et al., 2024, equation 4; DRAIL per entry)."""
    del a2, beta
    return above / jnp.maximum(above.sum(), 1).astype(jnp.float32)


def dpo(a2: Levels, above: Array, beta: float) -> Levels:
    """Beta times the sum over levels (Diffusion-DPO; Wallace et al., 2024, eq. 14)."""
    del a2
    return beta * above.astype(jnp.float32)


def single(a2: Levels, above: Array, beta: float) -> Levels:
    """The one level above t (membership inference; Carlini et al., 2023, section 5.2)."""
    del a2, beta
    first = above & ~jnp.roll(above, 1).at[0].set(False)
    return first.astype(jnp.float32)


WEIGHTINGS = {
    "elbo": Weighting(elbo, per_entry=False, log_ratio=True),
    "integral": Weighting(integral, per_entry=False, log_ratio=True),
    "uniform": Weighting(uniform, per_entry=False, log_ratio=False),
    "dpo": Weighting(dpo, per_entry=False, log_ratio=False),
    "drail": Weighting(uniform, per_entry=True, log_ratio=False),
    "membership": Weighting(single, per_entry=True, log_ratio=False),
}
"""``drail``: the logit of D = exp(-L_expert) / (exp(-L_expert) + exp(-L_base)) with mean
errors L (Lai et al., 2024, equations 5-6), the two labels being the two models."""


def loss_gap(source: Source, settings: LossGap, seed: int, workdir: Path | None) -> Reward:
    """Weighted gap of the models' denoising errors of x_t, base minus expert.

    Nothing is trained. ``settings.noises`` noises, fixed by the seed and mirrored, make
    it a function; ``settings.weighting`` is one of ``WEIGHTINGS``. ``elbo`` and
    ``integral`` are in nats, the others sums or means of errors. Reads the pair.

    Raises:
        ValueError: without a pair, for an unknown weighting, or no noises.
    """
    del workdir
    began = time.perf_counter()
    pair = pair_of("loss_gap", source)
    rule = WEIGHTINGS[choose("weighting", settings.weighting, WEIGHTINGS)]
    if settings.noises < 1:
        raise ValueError(f"loss_gap needs noises >= 1, got {settings.noises}")
    key = jax.random.key(seed)

    def rho(x_t: Sample, t: Step) -> Scalar:
        eps = mirrored(key, settings.noises, pair.schedule.num_steps, x_t.shape)
        gaps = level_gaps(pair, x_t, t, eps, source.pinned, per_entry=rule.per_entry)
        a2, above = relative_signal(pair.schedule, t)
        # Levels at and below t have weight zero, and may have no finite gap.
        total = jnp.sum(rule.weights(a2, above, settings.beta) * jnp.where(above, gaps, 0))
        if not rule.log_ratio:
            return total
        return total + line_integral(pair, x_t, last(pair), source.pinned)

    per_value = 2 * settings.noises * pair.schedule.num_steps
    units = "nats" if rule.log_ratio else "errors"
    return untrained("loss_gap", rho, source, units, began, per_value)


def last(pair: Pair) -> Array:
    """The noisiest level."""
    return jnp.int32(pair.schedule.num_steps - 1)


def relative_signal(schedule: Schedule, t: Step) -> tuple[Levels, Array]:
    """Signal share a^2 of every level relative to t, and which levels lie above it."""
    above = jnp.arange(schedule.num_steps) > t
    return jnp.where(above, schedule.alpha_bar / schedule.alpha_bar[t], 1.0), above


def mirrored(
    key: Array, count: int, num_steps: int, shape: tuple[int, ...]
) -> Float[Array, "count num_steps ..."]:
    """Noises per level; the second half are the first, negated (antithetic)."""
    half = jax.random.normal(key, ((count + 1) // 2, num_steps, *shape))
    return jnp.concatenate([half, -half])[:count]


def level_gaps(
    pair: Pair,
    x_t: Sample,
    t: Step,
    eps: Float[Array, "noises num_steps ..."],
    pinned: Mask | None,
    *,
    per_entry: bool,
) -> Levels:
    """||eps - eps_base||^2 - ||eps - eps_expert||^2 at every level, mean over noises.

    Only the levels above t mean anything.
    """
    schedule = pair.schedule
    a2, _ = relative_signal(schedule, t)
    condition = hold(pinned, x_t)
    free = jnp.ones(x_t.shape) if pinned is None else 1.0 - pinned.astype(x_t.dtype)

    def gap(s: Array, a2: Array, eps: Array) -> Array:
        c = jnp.sqrt(jnp.maximum(1 - a2, 1e-12))
        x_s = pin(jnp.sqrt(a2) * x_t + c * eps, condition)

        def error(eps_fn: EpsFn) -> Array:
            noise = c / schedule.sigma[s] * eps_fn(x_s, s)
            return jnp.sum(jnp.square(eps - noise) * free)

        return error(pair.base) - error(pair.expert)

    levels = jnp.arange(schedule.num_steps)
    gaps = jax.vmap(jax.vmap(gap), in_axes=(None, None, 0))(levels, a2, eps).mean(0)
    return gaps / free.sum() if per_entry else gaps
