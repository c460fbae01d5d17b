"""Statistics of few numbers: intervals by bootstrap, robust means."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import trim_mean


class Estimate(NamedTuple):
    """A number with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def bootstrap(
    statistic: Callable[..., float],
    *samples: np.ndarray,
    seed: int = 0,
    resamples: int = 500,
) -> Estimate:
    """Percentile bootstrap interval, resampling every sample on its own (strata).

    Args:
        statistic: function of as many arrays as there are samples.
        *samples: arrays whose first axis is the unit that is resampled (an episode).
        seed: seed of the resampling.
        resamples: number of bootstrap draws.

    Raises:
        ValueError: if a sample is empty.
    """
    for i, sample in enumerate(samples):
        if len(sample) == 0:
            raise ValueError(f"sample {i} is empty; nothing to resample")
    rng = np.random.default_rng(seed)
    draws = [
        statistic(*(s[rng.integers(len(s), size=len(s))] for s in samples))
        for _ in range(resamples)
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(float(statistic(*samples)), float(low), float(high))


def interquartile_mean(x: np.ndarray) -> float:
    """Mean of the middle half (Agarwal et al., 2021)."""
    return float(trim_mean(np.asarray(x).ravel(), 0.25))
