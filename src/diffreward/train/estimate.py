"""What a run will cost, known before anything is compiled."""

import math
from typing import Any

import jax
import optax

from diffreward.train.settings import Members, Numerics
from diffreward.train.state import MEMBER_AXES, Task, init_state
from diffreward.train.step import make_train_step


def abstract_batch(task: Task, data: Any, members: Members = Members()) -> Any:
    """Shapes of one member's batch."""

    def draw(data: Any) -> Any:
        if members.population is None:
            return task.draw(data, jax.random.key(0))
        keys = jax.random.split(jax.random.key(0), members.population)
        return jax.vmap(task.draw, in_axes=(members.data_axes, 0))(data, keys)

    batch = jax.eval_shape(draw, data)
    if members.population is None:
        return batch
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batch)


def estimate(
    task: Task,
    tx: optax.GradientTransformation,
    *,
    data: Any,
    frozen: Any = None,
    members: Members = Members(),
) -> dict[str, int]:
    """Size of a run, from shapes alone; nothing is compiled or allocated.

    Returns:
        ``parameters`` of one member; bytes of the state of all members
        (``state_bytes``), of ``data`` and ``frozen`` together (``input_bytes``) and of
        one batch of all members (``batch_bytes``); ``flops_per_step`` of all members.
    """
    key = jax.random.key(0)
    state = jax.eval_shape(lambda: init_state(task.init, tx, key, members.population))
    batch = abstract_batch(task, data, members)
    count = members.population or 1
    step = make_train_step(task.loss, tx, Numerics())
    if members.population is not None:
        batch_axes = None  # one member's shapes serve all: only the cost is wanted
        axes = (MEMBER_AXES, members.frozen_axes, None, batch_axes)
        step = jax.vmap(step, in_axes=axes, out_axes=(MEMBER_AXES, 0))
    cost = jax.jit(step).lower(state, frozen, key, batch).cost_analysis() or {}
    return {
        "parameters": _count(state.params) // count,
        "state_bytes": _bytes(state),
        "input_bytes": _bytes((data, frozen)),
        "batch_bytes": _bytes(batch) * count,
        "flops_per_step": int(cost.get("flops", 0)),
    }


def _count(tree: Any) -> int:
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


def _bytes(tree: Any) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))
