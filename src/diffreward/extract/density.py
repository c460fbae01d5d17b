"""Log densities along a path from level t to pure noise: training-free references."""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffreward.diffusion import from_eps, hold, pin
from diffreward.extract.potential import line_integral
from diffreward.extract.settings import ItoLogRatio, OdeLogRatio
from diffreward.extract.source import Source, pair_of
from diffreward.extract.training import samples_of, untrained
from diffreward.reward import Pair, Reward, relative_score
from diffreward.types import EpsFn, Mask, Sample, Scalar, Step


def ode_log_ratio(
    source: Source, settings: OdeLogRatio, seed: int, workdir: Path | None
) -> Reward:
    """Difference of the log densities that the models' probability flows assign to x_t.

    Song et al. (2021), equation 39. The flow is followed in the angle of the noise,
    phi = arctan(sigma / sqrt(alpha_bar)), in which its velocity is the v-prediction
    (Salimans & Ho, 2022), by Heun's rule over the levels of the schedule. The divergence
    is exact, or of ``settings.probes`` sign vectors (Hutchinson, 1990) fixed by the seed.
    Reads the pair. In its cost a tangent pushed through a model counts as an evaluation;
    the exact divergence pushes one per entry of a sample, known if there are any samples.

    Raises:
        ValueError: without a pair, or with a negative number of probes.
    """
    del workdir
    began = time.perf_counter()
    pair, pinned = pair_of("ode_log_ratio", source), source.pinned
    if settings.probes < 0:
        raise ValueError(f"ode_log_ratio needs probes >= 0, got {settings.probes}")
    key = jax.random.key(seed)

    def rho(x_t: Sample, t: Step) -> Scalar:
        probes = None
        if settings.probes:
            shape = (settings.probes, *x_t.shape)
            probes = jax.random.rademacher(key, shape, x_t.dtype)
        sides = [
            flow_log_density(pair, eps_fn, x_t, t, pinned, probes)
            for eps_fn in (pair.base, pair.expert)
        ]
        return sides[1] - sides[0]

    steps = pair.schedule.num_steps - 1
    samples = next(iter(samples_of(source).values()), None)
    entries = 0 if samples is None else samples[0].size
    per_value = 4 * steps * (1 + (settings.probes or entries))
    return untrained("ode_log_ratio", rho, source, "nats", began, per_value)


def flow_log_density(
    pair: Pair,
    eps_fn: EpsFn,
    x_t: Sample,
    t: Step,
    pinned: Mask | None,
    probes: Float[Array, "probes ..."] | None,
) -> Scalar:
    """Log density of one model's flow at x_t, up to a constant of the model.

    At the last level the density is the integral of the score from the origin.
    """
    schedule = pair.schedule
    angle = jnp.arctan2(schedule.sigma, schedule.sqrt_alpha_bar)
    condition = hold(pinned, jnp.zeros_like(x_t))

    def velocity(x: Array, s: Array) -> Array:
        v = from_eps(schedule, "v", x, s, eps_fn(x, s))
        return pin(v, condition)

    def both(x: Array, s: Array) -> tuple[Array, Array]:
        if probes is None:
            flat = lambda y: velocity(y.reshape(x.shape), s).reshape(-1)
            return velocity(x, s), jnp.trace(jax.jacfwd(flat)(x.reshape(-1)))
        v, pushed = jax.vmap(
            lambda z: jax.jvp(lambda y: velocity(y, s), (x,), (z,)), out_axes=(None, 0)
        )(probes)
        return v, jnp.sum(pushed * probes) / len(probes)

    def step(carry: tuple[Array, Array], s: Array) -> tuple[tuple[Array, Array], None]:
        x, total = carry
        h = angle[s + 1] - angle[s]
        v, divergence = both(x, s)
        v_next, divergence_next = both(x + h * v, s + 1)
        # d log p / d phi = -divergence, so the density at t is that at the end plus it.
        after = x + h / 2 * (v + v_next)
        gained = total + h / 2 * (divergence + divergence_next)
        active = s >= t
        return (jnp.where(active, after, x), jnp.where(active, gained, total)), None

    levels = jnp.arange(schedule.num_steps - 1)
    (end, total), _ = jax.lax.scan(step, (x_t, jnp.zeros((), x_t.dtype)), levels)
    noise_only = Pair(lambda x, s: jnp.zeros_like(x), eps_fn, schedule)
    last = jnp.int32(schedule.num_steps - 1)
    return total + line_integral(noise_only, end, last, pinned)


def ito_log_ratio(
    source: Source, settings: ItoLogRatio, seed: int, workdir: Path | None
) -> Reward:
    """Log ratio of the models along noising paths from x_t, without a divergence.

    The Ito density estimator of SuperDiff (Skreta et al., 2025, theorem 1) for two
    models at once: along a path seen backwards, d log q = s . dx - (div f + f . s
    - g^2 |s|^2 / 2) ds, so the ratio needs scores alone. One step is the log ratio of the
    models' Gaussian reverse transitions of variance ``beta``. In the limit of many levels
    every path gives the same number; ``settings.noises`` paths, fixed by the seed and
    mirrored, are averaged. Reads the pair.

    Raises:
        ValueError: without a pair or paths.
    """
    del workdir
    began = time.perf_counter()
    pair, pinned = pair_of("ito_log_ratio", source), source.pinned
    if settings.noises < 1:
        raise ValueError(f"ito_log_ratio needs noises >= 1, got {settings.noises}")
    count, steps = settings.noises, pair.schedule.num_steps - 1
    key = jax.random.key(seed)

    def rho(x_t: Sample, t: Step) -> Scalar:
        half = jax.random.normal(key, ((count + 1) // 2, steps, *x_t.shape))
        paths = jnp.concatenate([half, -half])[:count]
        along = lambda eps: path_log_ratio(pair, x_t, t, eps, pinned)
        return jax.vmap(along)(paths).mean()

    return untrained("ito_log_ratio", rho, source, "nats", began, 2 * steps * count)


def path_log_ratio(
    pair: Pair,
    x_t: Sample,
    t: Step,
    eps: Float[Array, "steps ..."],
    pinned: Mask | None,
) -> Scalar:
    """Log ratio of the models along one noising path from x_t, given its noises."""
    schedule = pair.schedule
    condition = hold(pinned, x_t)
    free = jnp.ones(x_t.shape) if pinned is None else 1.0 - pinned.astype(x_t.dtype)

    def step(carry: tuple[Array, Array], inputs: tuple) -> tuple[tuple[Array, Array], None]:
        x, total = carry
        s, noise = inputs
        beta = schedule.beta[s + 1]
        x_next = pin(jnp.sqrt(1 - beta) * x + jnp.sqrt(beta) * noise, condition)
        gap = relative_score(pair, x_next, s + 1)
        mean = -(pair.base(x_next, s + 1) + pair.expert(x_next, s + 1))
        score_mean = mean / (2 * schedule.sigma[s + 1])
        # (|x - mu_b|^2 - |x - mu_e|^2) / (2 beta) with mu = (x' + beta s) / sqrt(alpha) and
        # x' = sqrt(alpha) x + sqrt(beta) n put in: no difference of large numbers.
        gained = jnp.sum(free * gap * (jnp.sqrt(beta) * noise + beta * score_mean))
        active = s >= t
        x, total = (
            jnp.where(active, x_next, x),
            jnp.where(active, total - gained / (1 - beta), total),
        )
        return (x, total), None

    levels = jnp.arange(schedule.num_steps - 1)
    start = (x_t, jnp.zeros((), x_t.dtype))
    (end, total), _ = jax.lax.scan(step, start, (levels, eps))
    last = jnp.int32(schedule.num_steps - 1)
    return total + line_integral(pair, end, last, pinned)
