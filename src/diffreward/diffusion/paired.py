"""Both models of a pair asked at every state of one chain."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from diffreward.diffusion.process import from_eps
from diffreward.diffusion.sampler import ddim_levels
from diffreward.diffusion.schedule import Schedule
from diffreward.diffusion.start import draw_noise
from diffreward.types import EpsFn, PRNGKey, Sample


class Remembering(NamedTuple):
    """A noise prediction that depends on the chain so far."""

    step: Callable[[Array, Array, Any], tuple[Array, Any]]
    """Maps (x_t, t, memory) to (eps, memory)."""
    memory: Any
    """Before the first step."""
    alone: EpsFn | None = None
    """The same outside a chain, of (x_t, t), if there is such a thing."""


class PairedChain(NamedTuple):
    """States of one DDIM chain and what both models say of each, noisiest first."""

    x_t: Float[Array, "levels *shape"]
    t: Int[Array, " levels"]
    base: Float[Array, "levels *shape"]
    """Noise prediction of the base at x_t."""
    expert: Float[Array, "levels *shape"]
    """Noise prediction of the expert at the same x_t."""
    x_0: Float[Array, "*shape"]
    """Where the chain ends: a sample of the model that was followed."""


def paired_chain(
    base: EpsFn,
    expert: EpsFn | Remembering,
    schedule: Schedule,
    key: PRNGKey,
    shape: tuple[int, ...],
    *,
    follow_expert: Bool[Array, ""] | bool,
    num_evaluations: int,
) -> PairedChain:
    """Follows one model's deterministic DDIM chain and asks both at every state.

    The published image experiment compares the next latents of both models from the same
    current one. Under a step without memory that difference is a fixed multiple of the
    difference of the noise predictions kept here, which hold for any schedule. Both
    chains of one key start from the same noise.

    Args:
        base: first model.
        expert: second model.
        schedule: noise schedule of both.
        key: of the initial noise.
        shape: of one sample.
        follow_expert: whose chain it is.
        num_evaluations: levels visited, evenly spaced.

    Raises:
        ValueError: if more levels are asked for than there are, or the chain stops before
            noise.
    """
    levels = ddim_levels(schedule.num_steps, num_evaluations)
    after = jnp.asarray([*levels[1:], -1], jnp.int32)
    follow = jnp.asarray(follow_expert)
    if not isinstance(expert, Remembering):
        forgetful = expert
        expert = Remembering(lambda x_t, t, memory: (forgetful(x_t, t), memory), ())

    def step(
        carry: tuple[Sample, Any], pair: Array
    ) -> tuple[tuple[Array, Any], tuple[Array, Array, Array]]:
        (x_t, memory), (t, t_next) = carry, pair
        eps_base = base(x_t, t)
        eps_expert, memory = expert.step(x_t, t, memory)
        eps = jnp.where(follow, eps_expert, eps_base)
        x_0 = from_eps(schedule, "x_0", x_t, t, eps)
        clean, at = t_next < 0, jnp.maximum(t_next, 0)
        signal = jnp.where(clean, 1.0, schedule.sqrt_alpha_bar[at])
        noise = jnp.where(clean, 0.0, schedule.sigma[at])
        return (signal * x_0 + noise * eps, memory), (x_t, eps_base, eps_expert)

    t = jnp.asarray(levels, jnp.int32)
    start = (draw_noise(schedule, key, shape), expert.memory)
    (x_0, _), (x_t, eps_base, eps_expert) = jax.lax.scan(
        step, start, jnp.stack([t, after], 1)
    )
    return PairedChain(x_t, t, eps_base, eps_expert, x_0)
