"""Random batches of windows: the same ones on the device and on the host."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypedDict

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from diffreward.data.windows import Windows, gather
from diffreward.types import PRNGKey


class Batch(TypedDict):
    """Clean windows and which of their rows are real."""

    x_0: Float[Array, "batch horizon dim"]
    valid: Bool[Array, "batch horizon"]


def draw(windows: Windows, key: PRNGKey, batch_size: int, horizon: int) -> Batch:
    """A batch of one member's windows, uniform with replacement.

    A pure function of the key: resuming needs no iterator state. Put the windows on the
    device once (``jax.device_put``) and pass them to the jitted step as an argument.
    """
    index = _indices(key, windows.count, batch_size)
    x_0, valid = jax.vmap(lambda i: gather(windows, i, horizon))(index)
    return {"x_0": x_0, "valid": valid}


def host_batches(
    windows: Windows, keys: Iterable[PRNGKey], batch_size: int, horizon: int
) -> Iterator[Batch]:
    """The batches of ``draw``, one per key, gathered from host memory.

    For windows that ``fits_on_device`` refuses. Transfers are asynchronous, so the next
    batch is gathered while the device computes.
    """
    if windows.count.ndim:
        raise ValueError("host_batches: takes the windows of one member, not a stack")
    steps = windows.stride * np.arange(horizon)
    act_dim = len(windows.pad)
    for key in keys:
        window = windows.offset + np.asarray(_indices(key, windows.count, batch_size))
        last = windows.last[window][:, None]
        row = windows.start[window][:, None] + steps[None]
        valid = row <= last
        x_0 = np.asarray(windows.rows)[np.minimum(row, last)]
        action = np.where(valid[..., None], x_0[..., :act_dim], windows.pad)
        x_0 = np.concatenate([action, x_0[..., act_dim:]], axis=-1)
        yield {"x_0": jax.device_put(x_0), "valid": jax.device_put(valid)}


def map_batches(function: Callable[..., Any], batch_size: int, *arrays: Any) -> Any:
    """Applies a batched function to rows on the host, ``batch_size`` at a time.

    The last batch is filled up by repeating its rows, so that one size is ever compiled;
    what is found for them is dropped.

    Args:
        function: of as many trees of arrays as are given; its results have a row for
            every row. No row may depend on another.
        batch_size: rows per call.
        arrays: trees of arrays that share their first axis.

    Returns:
        The results of all rows, as NumPy arrays.

    Raises:
        ValueError: if there are no rows.
    """
    count = len(jax.tree.leaves(arrays)[0])
    if not count:
        raise ValueError("map_batches: there are no rows")
    parts = []
    for first in range(0, count, batch_size):
        rows = np.arange(first, min(first + batch_size, count))
        found = function(*_take(arrays, np.resize(rows, batch_size)))
        parts.append(_take(jax.tree.map(np.asarray, found), slice(len(rows))))
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def fits_on_device(windows: Windows, budget_bytes: int) -> bool:
    """Whether all arrays together stay within the budget."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(windows)) <= budget_bytes


def _take(arrays: Any, rows: np.ndarray | slice) -> Any:
    return jax.tree.map(lambda x: x[rows], arrays)


def _indices(
    key: PRNGKey, count: Array | np.ndarray, batch_size: int
) -> Int[Array, " batch"]:
    return jax.random.randint(key, (batch_size,), 0, count)
