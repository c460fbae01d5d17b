"""Batches and their noises, drawn the same way by everything that is trained."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffreward.diffusion import Schedule, draw_levels, hold, pin, q_sample
from diffreward.types import AnyArray, Mask, PRNGKey


class Noised(NamedTuple):
    """A batch at random levels."""

    x_t: Float[Array, "batch ..."]
    t: Int[Array, " batch"]
    eps: Float[Array, "batch ..."]


def draw_noise(
    schedule: Schedule, key: PRNGKey, x_0: Float[AnyArray, "batch ..."]
) -> tuple[Int[Array, " batch"], Float[Array, "batch ..."]]:
    """Levels (stratified, in random order) and standard normal noises of a batch."""
    level_key, order_key, noise_key = jax.random.split(key, 3)
    t = draw_levels(level_key, x_0.shape[0], schedule.num_steps)
    # Batches may be ordered (base first); levels must not be tied to that order.
    t = jax.random.permutation(order_key, t)
    return t, jax.random.normal(noise_key, x_0.shape)


def noise(
    schedule: Schedule,
    key: PRNGKey,
    x_0: Float[AnyArray, "batch ..."],
    pinned: Mask | None = None,
) -> Noised:
    """Diffuses a batch to random levels; pinned entries stay clean."""
    t, eps = draw_noise(schedule, key, x_0)
    return Noised(noise_at(schedule, x_0, t, eps, pinned), t, eps)


def noise_at(
    schedule: Schedule,
    x_0: Float[AnyArray, "batch ..."],
    t: Int[AnyArray, " batch"],
    eps: Float[AnyArray, "batch ..."],
    pinned: Mask | None = None,
) -> Float[Array, "batch ..."]:
    """Diffuses a batch to given levels; pinned entries stay clean."""

    def one(x_0: Any, t: Any, eps: Any) -> Array:
        return pin(q_sample(schedule, x_0, t, eps), hold(pinned, x_0))

    return jax.vmap(one)(x_0, t, eps)


def rows(samples: Any, key: PRNGKey, count: int) -> Any:
    """Rows drawn with replacement; the same ones of every array of a tree."""
    total = jax.tree.leaves(samples)[0].shape[0]
    picks = jax.random.randint(key, (count,), 0, total)
    return jax.tree.map(lambda x: x[picks], samples)


def equal_parts(
    draw: Callable[[str, PRNGKey, int], Any],
    names: Iterable[str],
    key: PRNGKey,
    batch_size: int,
) -> Any:
    """A batch of equal numbers of rows of several sets, one set after the other.

    Args:
        draw: maps (name of a set, key, count) to a pytree of that many rows.
        names: of the sets.
        key: key of the batch; every set draws from a key of its own.
        batch_size: of all together; what does not divide is left out.
    """
    names = list(names)
    count = batch_size // len(names)
    parts = [draw(n, jax.random.fold_in(key, i), count) for i, n in enumerate(names)]
    return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
