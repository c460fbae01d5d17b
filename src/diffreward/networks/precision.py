"""Networks in the precision of their parameters."""

from typing import Any

import jax
from jaxtyping import Array

from diffreward.types import Params


def apply(network: Any, params: Params, x_t: Array, t: Array, *context: Array) -> Array:
    """Runs a network in the precision of its parameters; samples keep their own."""
    dtype = jax.tree.leaves(params)[0].dtype
    rest = (c.astype(dtype) for c in context)
    return network.apply(params, x_t.astype(dtype), t, *rest).astype(x_t.dtype)
