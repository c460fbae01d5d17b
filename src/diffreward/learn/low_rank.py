"""Low-rank adaptations as they are trained (Hu et al., 2021): W + down up."""

import re
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from diffreward.types import Params, PRNGKey

Adaptations = dict[str, dict[str, jax.Array]]
"""``down`` (in, rank) and ``up`` (rank, out) by the path of the matrix they change."""


def init_low_rank(params: Params, key: PRNGKey, pattern: str, rank: int) -> Adaptations:
    """Adaptations that change nothing yet: every ``up`` is zero.

    Args:
        params: of the network.
        key: of the other factors, which have deviation ``1 / sqrt(in)``.
        pattern: of the paths of the matrices to adapt, such as ``to_[qkv]/kernel$``.
        rank: of the changes.

    Raises:
        ValueError: if no matrix has such a path, or one is smaller than the rank.
    """
    flat: Any = flatten_dict(params, sep="/")
    paths = [p for p, w in flat.items() if w.ndim == 2 and re.search(pattern, p)]
    if not paths:
        raise ValueError(f"no matrix of the network has a path like {pattern!r}")
    if small := [p for p in paths if min(flat[p].shape) < rank]:
        raise ValueError(f"{small[0]} is smaller than rank={rank}")
    keys = jax.random.split(key, len(paths))
    made = {}
    for path, own in zip(paths, keys, strict=True):
        rows, columns = flat[path].shape
        down = jax.random.normal(own, (rows, rank)) / jnp.sqrt(jnp.float32(rows))
        made[path] = {"down": down, "up": jnp.zeros((rank, columns))}
    return made


def with_low_rank(params: Params, adaptations: Adaptations, scale: float = 1.0) -> Params:
    """Parameters with the changes added."""
    flat: Any = flatten_dict(params, sep="/")
    changed = {p: flat[p] + scale * (a["down"] @ a["up"]) for p, a in adaptations.items()}
    return unflatten_dict({**flat, **changed}, sep="/")
