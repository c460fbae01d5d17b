"""Planning: sampling trajectories that start where we stand."""

import jax
from jaxtyping import Array, Bool, Float

from diffreward.diffusion import Condition, Schedule, sample
from diffreward.types import EpsFn, PRNGKey


def plan(
    eps_fn: EpsFn,
    schedule: Schedule,
    key: PRNGKey,
    known: Float[Array, "batch horizon dim"],
    pinned: Bool[Array, "horizon dim"],
    *,
    num_evaluations: int | None = None,
) -> Float[Array, "batch horizon dim"]:
    """Samples one plan per row of ``known``, whose pinned entries it keeps.

    Args:
        eps_fn: noise prediction, steered or not.
        schedule: its noise schedule.
        key: key of the batch; plan i draws from the i-th split.
        known: normalised trajectories; only their pinned entries (a start, a goal) are
            read.
        pinned: which entries those are.
        num_evaluations: fewer network evaluations by DDIM; by default every level is
            visited by the ancestral sampler.
    """
    method = "ddpm" if num_evaluations is None else "ddim"

    def one(plan_key: Array, values: Array) -> Array:
        return sample(
            eps_fn,
            schedule,
            plan_key,
            values.shape,
            condition=Condition(pinned, values),
            method=method,
            num_evaluations=num_evaluations,
            eta=1.0,
        )

    return jax.vmap(one)(jax.random.split(key, known.shape[0]), known)
