"""What a noised state counts in the alignment loss, beside the weight of its objective."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffreward.diffusion import Schedule
from diffreward.reward import elbo_weights

Weighting = Callable[
    [Schedule, Int[Array, " batch"], Float[Array, " batch"]], Float[Array, "..."]
]
"""Factors of a batch, of (schedule, levels, squared targets in the objective's weight)."""

LEAST = 0.1
"""Share of the plain weight that no level falls below, and share of the batch's mean
square that is added to every state's own, so that none counts without bound."""


def plain(schedule: Schedule, t: Array, signal: Array) -> Array:
    """One: the weight of the objective alone."""
    del schedule, t, signal
    return jnp.ones(())


def chain_kl(schedule: Schedule, t: Array, signal: Array) -> Array:
    """The weight of the KL between the guided chain and the expert's, in score units.

    A step of the ancestral chain from level t adds half the drop of the signal-to-noise
    ratio times the squared error of x_0 (Kingma et al., 2021, equation 13), where the
    weight of v counts ``1 / sigma^2`` of it.
    """
    del signal
    factor = elbo_weights(schedule) * jnp.square(schedule.sigma)
    return jnp.maximum(factor, LEAST)[t]


def relative(schedule: Schedule, t: Array, signal: Array) -> Array:
    """One over a state's own squared target: every state's relative error counts alike.

    Least squares fits large differences first and leaves small ones shrunk.
    """
    del schedule, t
    floor = LEAST * signal.mean()
    return jax.lax.stop_gradient(signal.mean() / (signal + floor))


WEIGHTINGS: dict[str, Weighting] = {
    "plain": plain,
    "chain_kl": chain_kl,
    "relative": relative,
}
"""By the names that configs have for them."""
