"""Conditioning by pinning: known entries stay at their clean value at every level.

One mechanism serves training, extraction, sampling and steering; pinned entries are
never part of a loss (Janner et al. 2022, section 3.4, "inpainting").
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool

from diffreward.types import Mask, Sample


class Condition(NamedTuple):
    """Entries to hold (``pinned``) and what to hold them at (``values``)."""

    pinned: Mask
    values: Sample


def hold(pinned: Mask | None, values: Sample) -> Condition | None:
    """The condition that a sample with these values fulfils; None if nothing is pinned."""
    return None if pinned is None else Condition(pinned, values)


def free_entries(
    shape: tuple[int, ...], pinned: Mask | None, mask: Mask | None = None
) -> Mask:
    """The entries that count (True).

    Args:
        shape: of one sample.
        pinned: conditioned entries, which never count.
        mask: entries that count beside the pinned ones; all by default.
    """
    free = jnp.ones(shape, bool) if mask is None else mask
    return free if pinned is None else free & ~pinned


def pinned_observations(
    horizon: int, act_dim: int, obs_dim: int, steps: Sequence[int] = (0,)
) -> Bool[Array, "horizon dim"]:
    """Marks the observation entries at ``steps`` (negative counts from the end)."""
    pinned = jnp.zeros((horizon, act_dim + obs_dim), bool)
    for step in steps:
        pinned = pinned.at[step, act_dim:].set(True)
    return pinned


def pin(x: Sample, condition: Condition | None) -> Sample:
    """Writes the condition into ``x``; ``None`` leaves it unchanged."""
    if condition is None:
        return x
    return jnp.where(condition.pinned, condition.values, x)
