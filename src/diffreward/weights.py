"""Importance weights: how much a weighted sample is worth."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Float


def effective_sample_size(
    log_weights: Float[Array, " samples"] | Float[np.ndarray, " samples"],
) -> Any:
    """(sum w)^2 / sum w^2: equal weights give their number, one weight alone gives 1.

    How many samples of the target the weighted samples are worth (Kong, 1992). A
    constant added to the logarithms changes nothing.

    Args:
        log_weights: logarithms of the weights, nats. NumPy's are summed in float64 and
            checked; JAX's may be traced, are summed in their own precision and are not.

    Returns:
        A float, or a scalar array for a JAX array.

    Raises:
        ValueError: if there are no weights, or all are zero.
    """
    if isinstance(log_weights, jax.Array):
        total: Any = jax.scipy.special.logsumexp
        return jnp.exp(2 * total(log_weights) - total(2 * log_weights))
    log_weights = np.asarray(log_weights, np.float64)
    if log_weights.size == 0 or log_weights.max() == -np.inf:
        raise ValueError("effective_sample_size: no weight is positive")
    total = scipy.special.logsumexp
    return float(np.exp(2 * total(log_weights) - total(2 * log_weights)))
