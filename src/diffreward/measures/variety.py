"""How near a set of samples is to another one, and how much of it it covers."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from diffreward.measures.interval import Interval

Rows = Float[np.ndarray, "_ _"]


class PrecisionRecall(NamedTuple):
    """Two shares that see different faults."""

    precision: float
    """Of the samples, those that lie where the reference does."""
    recall: float
    """Of the reference, what lies where the samples do: their variety."""


def kernel_distance(reference: Rows, samples: Rows) -> float:
    """Squared maximum mean discrepancy under the kernel ``(x . y / d + 1)^3``, unbiased.

    The KID of Binkowski et al. (2018, section 4), of any features; 0 for equal laws, and
    then also negative.

    Raises:
        ValueError: for fewer than two rows of either, or features of two lengths.
    """
    x, y = _two(reference, samples, 2)
    kernel = lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3
    off = lambda k: (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))
    return float(off(kernel(x, x)) + off(kernel(y, y)) - 2 * kernel(x, y).mean())


def precision_recall(
    reference: Rows, samples: Rows, *, neighbours: int = 3
) -> PrecisionRecall:
    """Improved precision and recall (Kynkaanniemi et al., 2019, equations 1 and 2).

    A set lies where some row of it has a ball around it that reaches its own
    ``neighbours``-th nearest row. Values depend on the numbers of rows: compare sets of
    equal sizes.

    Raises:
        ValueError: for as few rows as neighbours, or features of two lengths.
    """
    x, y = _two(reference, samples, neighbours + 1)
    between = pairwise_distances(x, y)
    return PrecisionRecall(
        float((between <= _radii(x, neighbours)[:, None]).any(0).mean()),
        float((between <= _radii(y, neighbours)[None]).any(1).mean()),
    )


def halves(
    statistic: Callable[..., float],
    *groups: np.ndarray,
    seed: int = 0,
    resamples: int = 200,
) -> Interval:
    """A number with a 95 % interval from random halves of its samples.

    For statistics that a bootstrap breaks because they compare rows with one another, and
    a row with its copy is no distance. A half drawn without replacement deviates from the
    whole as the whole does from the truth (Shao & Wu, 1989: delete-d with d = n / 2); its
    own bias, that of fewer rows, is taken out.

    Args:
        statistic: of all groups.
        *groups: arrays whose rows are resampled, each on its own.
        seed: of the halves.
        resamples: number of them.

    Raises:
        ValueError: if a group has fewer than two rows.
    """
    if min(map(len, groups)) < 2:
        raise ValueError("halves need two rows or more of every group")
    rng = np.random.default_rng(seed)
    half = lambda x: x[rng.permutation(len(x))[: len(x) // 2]]
    draws = np.array([statistic(*map(half, groups)) for _ in range(resamples)])
    value = statistic(*groups)
    low, high = np.percentile(draws - draws.mean(), [2.5, 97.5])
    return Interval(value, float(value - high), float(value - low))


def _two(reference: Rows, samples: Rows, least: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = (np.asarray(a, np.float64) for a in (reference, samples))
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"features of {x.shape[1]} and {y.shape[1]} numbers")
    if min(len(x), len(y)) < least:
        raise ValueError(f"{len(x)} and {len(y)} rows; {least} of each are needed")
    return x, y


def pairwise_distances(a: Rows, b: Rows) -> Rows:
    """Euclidean distance of every row of ``a`` to every row of ``b``."""
    square = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.sqrt(np.maximum(square, 0))


def _radii(x: np.ndarray, neighbours: int) -> np.ndarray:
    own = pairwise_distances(x, x)
    np.fill_diagonal(own, 0.0)
    return np.partition(own, neighbours, 1)[:, neighbours]
