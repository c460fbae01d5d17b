"""Numbers with a bootstrap interval; the resampled unit is an episode (or a seed)."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import trim_mean


class Interval(NamedTuple):
    """A number with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def bootstrap(
    statistic: Callable[..., float],
    *strata: tuple[np.ndarray, ...],
    seed: int = 0,
    resamples: int = 500,
) -> Interval:
    """Stratified percentile bootstrap of a statistic of paired samples.

    Args:
        statistic: function of all arrays of all strata, in order.
        *strata: groups of arrays of one length; the rows of a group are resampled
            together, the groups independently.
        seed: seed of the resampling.
        resamples: number of bootstrap draws. Draws on which the statistic is not
            defined (NaN) are left out.

    Raises:
        ValueError: if a group is empty.
    """
    for i, group in enumerate(strata):
        if len(group[0]) == 0:
            raise ValueError(f"sample {i} is empty; nothing to resample")
    rng = np.random.default_rng(seed)

    def draw() -> float:
        arrays = []
        for group in strata:
            rows = rng.integers(len(group[0]), size=len(group[0]))
            arrays += [array[rows] for array in group]
        return statistic(*arrays)

    draws = np.array([draw() for _ in range(resamples)])
    defined = draws[~np.isnan(draws)]
    low, high = np.percentile(defined, [2.5, 97.5]) if defined.size else (np.nan, np.nan)
    value = statistic(*(array for group in strata for array in group))
    return Interval(float(value), float(low), float(high))


def interquartile_mean(x: np.ndarray) -> float:
    """Mean of the middle half (Agarwal et al., 2021)."""
    return float(trim_mean(np.asarray(x).ravel(), 0.25))


def paired(first: np.ndarray, second: np.ndarray, names: str) -> tuple[np.ndarray, ...]:
    """Two vectors of one length as float64.

    Raises:
        ValueError: if they are not vectors of one length of at least two finite rows.
    """
    x, y = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 2:
        raise ValueError(
            f"{names} must be vectors of one length >= 2, got shapes {x.shape} and "
            f"{y.shape}; give one number per episode"
        )
    bad = ~(np.isfinite(x) & np.isfinite(y))
    if bad.any():
        raise ValueError(f"{names}: row {int(bad.argmax())} is not finite; drop such rows")
    return x, y
