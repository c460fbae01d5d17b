"""Foreign tensors for modules whose submodules carry the foreign names.

``down_blocks.0.resnets.1.conv1.weight`` is ``down_blocks_0/resnets_1/conv1/kernel``: a
number joins the name before it, and what a ``weight`` is follows from our parameters.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from diffreward.files import FileValueError
from diffreward.interop.tensors import finite
from diffreward.types import Params

WEIGHTS = ("kernel", "scale", "embedding")


def rename(
    init: Callable[..., Params],
    arguments: tuple[Any, ...],
    tensors: dict[str, np.ndarray],
    where: str,
    *,
    dtype: Any = jnp.float32,
) -> Params:
    """Parameters of a module from foreign tensors.

    Args:
        init: of the module; only shapes are computed.
        arguments: what it is called with, after the key.
        tensors: by foreign name, without any prefix; taken out one by one.
        where: file or folder, for messages.
        dtype: of the parameters.

    Raises:
        ValueError: if a tensor is missing, left over, of another shape, or holds anything
            but numbers.
    """
    try:
        shapes = jax.eval_shape(init, jax.random.key(0), *arguments)["params"]
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise FileValueError(f"{where}: the config's sizes do not fit: {reason}") from error
    wanted = flatten_dict(shapes, sep="/")
    names = {ours: foreign_name(ours) for ours in wanted}
    if missing := [theirs for theirs in names.values() if theirs not in tensors]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise FileValueError(f"{where} lacks the tensor {missing[0]}{more}")
    if extra := sorted(tensors.keys() - set(names.values())):
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        raise FileValueError(f"{where} has the unexpected tensor {extra[0]}{more}")
    flat = {}
    for ours, theirs in names.items():
        # Each is let go when it is ours: no network lies in memory twice.
        own = np.asarray(tensors.pop(theirs))
        finite([(theirs, own)], where)
        value = _layout(own, ours, wanted[ours].ndim)
        if value.shape != wanted[ours].shape:
            raise FileValueError(
                f"{where}: {theirs} has shape {own.shape}, which does not fit "
                f"the config (ours: {wanted[ours].shape})"
            )
        flat[ours] = jnp.asarray(value, dtype)
    return {"params": unflatten_dict(flat, sep="/")}


def foreign_name(ours: str) -> str:
    """``down_blocks_0/norm1/scale`` to ``down_blocks.0.norm1.weight``."""
    *path, leaf = ours.split("/")
    # Numbers are list indices where the foreign module is a list: after these names.
    lists = r"\b(blocks|resnets|attentions|transformer_blocks|layers|net|to_out"
    lists += r"|down_blocks|up_blocks|downsamplers|upsamplers)_(\d+)"
    path = [re.sub(lists, r"\1.\2", part) for part in path]
    path = [re.sub(r"^(net\.\d+)_", r"\1.", part) for part in path]
    return ".".join([*path, "weight" if leaf in WEIGHTS else leaf])


def _layout(value: np.ndarray, ours: str, rank: int) -> np.ndarray:
    """PyTorch's (out, in, height, width) and (out, in) to ours, channels last."""
    if not ours.endswith("/kernel"):
        return value
    if value.ndim == 4 and value.shape[2:] == (1, 1) and rank == 2:
        value = value[:, :, 0, 0]  # a convolution of one pixel is a linear map
    if value.ndim not in (2, 4):
        return value
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
