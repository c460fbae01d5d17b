"""Random batches of windows: the same ones on the device and on the host."""

from collections.abc import Iterable, Iterator
from typing import TypedDict

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


def fits_on_device(windows: Windows, budget_bytes: int) -> bool:
    """Whether all arrays together stay within the budget."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(windows)) <= budget_bytes


def _indices(
    key: PRNGKey, count: Array | np.ndarray, batch_size: int
) -> Int[Array, " batch"]:
    return jax.random.randint(key, (batch_size,), 0, count)
