"""What is trained, and the arrays that carry a run from step to step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from diffreward.types import Metrics, Params, PRNGKey, Scalar


class Task(NamedTuple):
    """What the loop trains: three pure functions.

    ``data`` and ``frozen`` are pytrees of arrays that the loop passes as arguments to
    the compiled program, so that neither becomes a constant inside it.
    """

    init: Callable[[PRNGKey], Params]
    """Maps a key to fresh parameters."""
    loss: Callable[[Params, Any, PRNGKey, Any], tuple[Scalar, Metrics]]
    """Maps (params, frozen, key, batch) to the loss of a batch and its metrics."""
    draw: Callable[[Any, PRNGKey], Any]
    """Maps (data, key) to a batch: a pytree whose arrays share their first axis."""


@flax.struct.dataclass
class TrainState:
    """Everything that changes during training, and nothing but arrays.

    In a population every array but ``step`` has a leading axis of members.
    """

    step: Any
    """Number of updates done, int32."""
    params: Params
    ema_params: Params
    """Exponential moving average of ``params``."""
    opt_state: Any


# One step counter serves all members: none can run ahead of the others.
MEMBER_AXES = TrainState(step=None, params=0, ema_params=0, opt_state=0)


def init_state(
    init: Callable[[PRNGKey], Params],
    tx: optax.GradientTransformation,
    key: PRNGKey,
    population: int | None = None,
) -> TrainState:
    """Fresh state at step 0; member ``i`` is initialised with ``fold_in(key, i)``.

    A run without a population is member 0 of any population with the same key.
    """

    def member(index: jax.Array) -> TrainState:
        params = init(jax.random.fold_in(key, index))
        return TrainState(jnp.zeros((), jnp.int32), params, params, tx.init(params))

    if population is None:
        return member(jnp.zeros((), jnp.int32))
    return jax.vmap(member, out_axes=MEMBER_AXES)(jnp.arange(population))
