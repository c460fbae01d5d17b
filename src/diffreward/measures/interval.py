"""Numbers with a bootstrap interval; the resampled unit is an episode (or a seed)."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
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
    value = statistic(*(array for group in strata for array in group))
    return percentiles(value, draws)


def nested_bootstrap(
    statistic: Callable[[int, Int[np.ndarray, " rows"]], Any],
    units: Sequence[Sequence[np.ndarray]],
    *,
    seed: int = 0,
    resamples: int = 500,
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "resamples ..."]]:
    """Bootstrap of replicates (seeds), and within each of the units that it measured.

    Every draw takes as many replicates as there are, with replacement, and of each as
    many units as it has; what is drawn twice is resampled twice. With a handful of
    replicates the outer level is coarse, and too narrow rather than too wide.

    Args:
        statistic: of (replicate, rows of it): a number or an array of numbers.
        units: ``units[i][j]`` are the rows (an index array) of unit j, say an episode, of
            replicate i.
        seed: seed of the resampling.
        resamples: number of draws.

    Returns:
        The mean of the statistic over the replicates as they are, and over those of
        every draw.

    Raises:
        ValueError: if there is no replicate, or one has no units.
    """
    if not units or not all(map(len, units)):
        raise ValueError("every replicate needs units; there is nothing to resample")
    rng = np.random.default_rng(seed)

    def once(i: int) -> Any:
        picks = rng.integers(len(units[i]), size=len(units[i]))
        return statistic(i, np.concatenate([units[i][j] for j in picks]))

    def draw() -> Any:
        return np.mean([once(int(i)) for i in rng.integers(len(units), size=len(units))], 0)

    value = np.mean([statistic(i, np.concatenate(u)) for i, u in enumerate(units)], 0)
    return value, np.array([draw() for _ in range(resamples)])


def mean_draws(
    values: Float[np.ndarray, "replicates units"], *, seed: int = 0, draws: int = 20_000
) -> Float[np.ndarray, " draws"]:
    """Draws of a mean from what its replicates say: Student's t around their mean.

    For replicates that share no unit, such as seeds of a reward with episodes of their
    own: the spread of their means holds all that varies, seeds and episodes. A handful of
    means is too few to resample (percentile intervals of five cover 0.82 to 0.85 instead of
    0.95, nested ones 0.85 to 0.99); for means near normal, percentiles of these draws are
    Student's interval, and functions of several means are carried through.

    Args:
        values: of every unit of every replicate; of a single replicate, the units are
            the replicates.
        seed: of the draws.
        draws: their number.

    Raises:
        ValueError: for fewer than two replicates and units.
    """
    means = values.mean(1) if len(values) > 1 else np.asarray(values[0])
    if len(means) < 2:
        raise ValueError("an interval of a mean needs two replicates, or two units of one")
    error = means.std(ddof=1) / np.sqrt(len(means))
    t = np.random.default_rng(seed).standard_t(len(means) - 1, draws)
    return means.mean() + error * t


def percentiles(value: float, draws: np.ndarray) -> Interval:
    """A number with the 95 % range of its draws, without those that are not defined."""
    defined = draws[~np.isnan(draws)]
    low, high = np.percentile(defined, [2.5, 97.5]) if defined.size else (np.nan, np.nan)
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
