"""What the loop is told beside the task: who trains, how often, in which numbers, where."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jaxtyping import DTypeLike

from diffreward.train.sharding import Rule
from diffreward.train.state import TrainState


class Members(NamedTuple):
    """Models of one kind that are trained side by side, by one ``vmap``."""

    population: int | None = None
    """Number of members; None is a single model, with the numbers of member 0."""
    data_axes: Any = None
    """``vmap`` axes of ``data``: None is shared, 0 has one entry per member; a pytree
    prefix mixes the two."""
    frozen_axes: Any = None
    """The same for ``frozen``."""


class Numerics(NamedTuple):
    """How an update is computed."""

    ema_decay: float = 0.995
    """Decay d of the average, warmed up as min(d, (1 + n) / (10 + n)) over the n updates
    already done."""
    accumulate: int = 1
    """Number of slices the batch is cut into, one after the other, to save memory. Their
    gradients are averaged, so for a loss that is a mean over examples the update is that
    of the whole batch; slice i sees the key ``fold_in(key, i)``."""
    compute_dtype: DTypeLike | None = None
    """The floating parameters are cast to it on their way into the loss. Networks that
    take their dtype from their parameters compute in it."""


class Placement(NamedTuple):
    """Where the arrays live."""

    mesh: jax.sharding.Mesh | None = None
    """Devices; by default one, which suits a single process. Batches are cut over its
    axis ``data``."""
    rules: Sequence[Rule] = ()
    """How parameters are cut; see `state_shardings`. Replicated by default."""


class Loop(NamedTuple):
    """What happens how often, in steps, and who is told."""

    steps_per_dispatch: int = 50
    """Steps per compiled call; a remainder compiles once more."""
    log_every: int = 100
    """Between rows of metrics."""
    checkpoint_every: int = 1000
    """Between checkpoints."""
    checkpoint_seconds: float | None = None
    """A checkpoint is also made at the first end of a dispatch that comes this long after
    the last. Not with several processes, whose clocks differ."""
    evaluate: Callable[[TrainState], dict[str, Any]] | None = None
    """Maps a state to values to record; it must not keep the state, whose buffers the
    next dispatch reuses."""
    evaluate_every: int = 1000
    """Between evaluations."""
    progress: bool = True
    """Show progress on stderr."""
    wandb: dict[str, Any] | None = None
    """Keyword arguments of ``wandb.init`` to mirror the record there."""
