"""The optimiser of every stage: clipped Adam with a warmed-up schedule."""

import jax
import jax.numpy as jnp
import optax

from diffreward.names import choose
from diffreward.types import Params

SCHEDULES = ("constant", "cosine", "wsd")
COOLDOWN = 0.2
"""Share of the steps of ``wsd`` over which the rate falls."""


def learning_rate_schedule(
    peak: float, *, steps: int, warmup: int = 0, schedule: str = "constant"
) -> optax.Schedule:
    """Learning rate after n updates.

    It climbs linearly from peak / warmup to the peak, so that the first update is not
    wasted on a rate of zero; then it stays, falls as half a cosine to 0 at the end, or
    (``wsd``: warm-up, stable, decay; Hu et al., 2024) stays for four fifths of the steps
    and falls in a line.

    Raises:
        ValueError: for an unknown schedule, or a warm-up as long as the run.
    """
    choose("schedule", schedule, SCHEDULES)
    if not 0 <= warmup < steps:
        raise ValueError(
            f"warmup of {warmup} does not fit a run of {steps} steps; use 0 to {steps - 1}"
        )

    def rate(count: jax.typing.ArrayLike) -> jax.Array:
        n = jnp.asarray(count, jnp.float32)
        climb = jnp.minimum((n + 1) / max(warmup, 1), 1.0)
        if schedule == "constant":
            return peak * climb
        if schedule == "wsd":
            return peak * climb * jnp.clip((steps - n) / (COOLDOWN * steps), 0.0, 1.0)
        progress = jnp.clip((n - warmup) / (steps - warmup), 0.0, 1.0)
        return peak * climb * 0.5 * (1 + jnp.cos(jnp.pi * progress))

    return rate


def make_optimiser(
    learning_rate: float,
    *,
    steps: int,
    warmup: int = 0,
    schedule: str = "constant",
    clip_norm: float | None = None,
    clip_value: float | None = None,
    clip_weights: float | None = None,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """Adam (Kingma & Ba, 2015) with decoupled weight decay (Loshchilov & Hutter, 2019).

    Args:
        learning_rate: the peak.
        steps: length of the run, for the schedule.
        warmup: steps of the linear climb.
        schedule: ``constant``, ``cosine`` or ``wsd``.
        clip_norm: largest global gradient norm, applied first.
        clip_value: largest absolute gradient entry.
        clip_weights: largest absolute parameter, after every update.
        l2: factor of the sum of squares of all parameters, added to the loss (after the
            gradients are clipped).
        weight_decay: decay of arrays of two or more axes; biases and scales keep none.
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the root of the second moment.

    Raises:
        ValueError: as `learning_rate_schedule`.
    """
    rate = learning_rate_schedule(
        learning_rate, steps=steps, warmup=warmup, schedule=schedule
    )
    parts = []
    if clip_norm is not None:
        parts.append(optax.clip_by_global_norm(clip_norm))
    if clip_value is not None:
        parts.append(optax.clip(clip_value))
    if l2:
        parts.append(optax.add_decayed_weights(2 * l2))
    parts.append(optax.scale_by_adam(b1=b1, b2=b2, eps=eps))
    if weight_decay:
        parts.append(optax.add_decayed_weights(weight_decay, mask=_matrices))
    parts.append(optax.scale_by_learning_rate(rate))
    if clip_weights is not None:
        parts.append(_clip_weights(clip_weights))
    return optax.chain(*parts)


def _clip_weights(limit: float) -> optax.GradientTransformation:
    def within(update: jax.Array, param: jax.Array) -> jax.Array:
        return jnp.clip(param + update, -limit, limit) - param

    def updates(updates: Params, params: Params | None) -> Params:
        return jax.tree.map(within, updates, params)

    return optax.stateless(updates)


def _matrices(params: Params) -> Params:
    return jax.tree.map(lambda x: x.ndim > 1, params)
