"""Steering compared at equal distance from the base.

A larger guidance scale buys return with distance from the base, and a scale of one
method is not a scale of another. The KL divergence of the steered from the base law is
a common axis (Gao et al. 2023 plot reward against it): compare returns at equal KL.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from diffreward.measures.interval import Interval, bootstrap


class SteeringPoint(NamedTuple):
    """One guidance scale of one method."""

    scale: float
    kl: float
    """KL(steered || base) in nats; 0 for the base itself."""
    returns: Float[np.ndarray, " episodes"]


def return_at_kl(points: Sequence[SteeringPoint], kl: float) -> float:
    """Mean return of a method at a KL between those of its scales, interpolated.

    Raises:
        ValueError: if two scales have the same KL, or ``kl`` is outside their range.
    """
    ordered = _ordered(points)
    kls = [p.kl for p in ordered]
    if not kls[0] <= kl <= kls[-1]:
        raise ValueError(
            f"KL {kl:g} is outside [{kls[0]:g}, {kls[-1]:g}] nats, the range of the "
            "scales tried; try larger scales, or include scale 0 (the base)"
        )
    return float(np.interp(kl, kls, [np.mean(p.returns) for p in ordered]))


def gain_at_kl(
    first: Sequence[SteeringPoint],
    second: Sequence[SteeringPoint],
    kl: float,
    *,
    seed: int = 0,
    resamples: int = 500,
) -> Interval:
    """Return of the first method minus the second's, at equal KL from the base.

    The interval resamples the episodes of every scale on its own. KLs count as known:
    estimate them from many more samples than the returns.

    Raises:
        ValueError: as :func:`return_at_kl`, for either method.
    """
    for points in (first, second):
        return_at_kl(points, kl)
    curve = lambda kls, means: np.interp(kl, kls, means)
    return _compare(first, second, curve, seed, resamples)


def mean_gain(
    first: Sequence[SteeringPoint],
    second: Sequence[SteeringPoint],
    *,
    seed: int = 0,
    resamples: int = 500,
) -> Interval:
    """Mean of the gain over all KLs that both methods reached.

    The area between the two interpolated curves over the width of their common range.

    Raises:
        ValueError: if two scales of a method have the same KL, or the ranges of the two
            methods do not overlap.
    """
    ends = [(p[0].kl, p[-1].kl) for p in (_ordered(first), _ordered(second))]
    low, high = max(e[0] for e in ends), min(e[1] for e in ends)
    if low >= high:
        raise ValueError(
            f"the methods share no range of KL: {ends[0]} and {ends[1]} nats; "
            "add scales between them"
        )

    def area(kls: np.ndarray, means: np.ndarray) -> float:
        # Exact for a piecewise linear curve: its corners and the ends.
        inside = kls[(kls > low) & (kls < high)]
        grid = np.concatenate([[low], inside, [high]])
        return float(np.trapezoid(np.interp(grid, kls, means), grid)) / (high - low)

    return _compare(first, second, area, seed, resamples)


def _ordered(points: Sequence[SteeringPoint]) -> list[SteeringPoint]:
    if not points:
        raise ValueError("steering: a method has no points")
    ordered = sorted(points, key=lambda p: p.kl)
    for one, two in zip(ordered, ordered[1:], strict=False):
        if one.kl == two.kl:
            raise ValueError(
                f"scales {one.scale:g} and {two.scale:g} have the same KL {one.kl:g}; "
                "pool their returns"
            )
    return ordered


def _compare(
    first: Sequence[SteeringPoint],
    second: Sequence[SteeringPoint],
    summary: Callable[[np.ndarray, np.ndarray], float],
    seed: int,
    resamples: int,
) -> Interval:
    """Difference of a summary of two curves (KLs, mean returns), with its interval."""
    methods = _ordered(first), _ordered(second)
    kls = [np.array([p.kl for p in points]) for points in methods]

    def difference(*returns: np.ndarray) -> float:
        means = np.array([r.mean() for r in returns])
        one, two = means[: len(kls[0])], means[len(kls[0]) :]
        return float(summary(kls[0], one) - summary(kls[1], two))

    strata = [(np.asarray(p.returns, np.float64),) for m in methods for p in m]
    return bootstrap(difference, *strata, seed=seed, resamples=resamples)
