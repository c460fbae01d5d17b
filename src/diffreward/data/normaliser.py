"""Affine normalisation per dimension; constant dimensions stay invertible."""

from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jaxtyping import Float

AnyArray = TypeVar("AnyArray", np.ndarray, jax.Array)


class Normaliser(NamedTuple):
    """x_norm = (x - shift) / scale; a pytree, so it travels with a checkpoint."""

    shift: Float[np.ndarray | jax.Array, " dim"]
    scale: Float[np.ndarray | jax.Array, " dim"]


def fit_limits(x: Float[np.ndarray, "*rows dim"]) -> Normaliser:
    """Maps the range of every dimension of ``x`` onto [-1, 1]."""
    rows = _rows(x)
    low, high = rows.min(0), rows.max(0)
    return _normaliser(rows, (low + high) / 2, (high - low) / 2)


def fit_gaussian(x: Float[np.ndarray, "*rows dim"]) -> Normaliser:
    """Gives every dimension of ``x`` mean 0 and standard deviation 1."""
    rows = _rows(x)
    return _normaliser(rows, rows.mean(0), rows.std(0))


def normalise(normaliser: Normaliser, x: AnyArray) -> AnyArray:
    """Normalises ``x`` of shape (..., dim)."""
    return (x - _lift(normaliser.shift, x)) / _lift(normaliser.scale, x)


def unnormalise(normaliser: Normaliser, x: AnyArray) -> AnyArray:
    """Inverse of ``normalise``; no clamping, so out-of-range samples stay visible."""
    return x * _lift(normaliser.scale, x) + _lift(normaliser.shift, x)


def _rows(x: np.ndarray) -> np.ndarray:
    rows = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
    if not len(rows):
        raise ValueError(f"normaliser: no rows to fit in an array of shape {x.shape}")
    return rows


def _normaliser(rows: np.ndarray, shift: np.ndarray, scale: np.ndarray) -> Normaliser:
    # A spread at the rounding level of float32 carries no signal: dividing by it
    # would only amplify rounding, so such a dimension counts as constant.
    least = np.maximum(1e-6 * np.abs(rows).max(0), np.finfo(np.float32).tiny)
    scale = np.where(scale <= least, 1.0, scale)
    return Normaliser(shift.astype(np.float32), scale.astype(np.float32))


def _lift(vector: Any, x: Any) -> Any:
    # Explicit leading axes: rank promotion may be set to raise.
    return vector.reshape((1,) * (x.ndim - 1) + (-1,))
