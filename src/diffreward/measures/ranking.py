"""Does a reward rank episodes as their true return does?

Every argument is one number per episode: the summed reward, and the summed true reward.
All measures are invariant to increasing transformations of the reward. Take test
episodes only; windows of one episode are not independent, so sum them first.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import kendalltau, rankdata, spearmanr

from diffreward.measures.interval import Interval, bootstrap, paired
from diffreward.names import choose

Rank = Literal["spearman", "kendall"]
Episodes = Float[np.ndarray, " episodes"]


class Band(NamedTuple):
    """Rank correlation among the episodes of similar true return."""

    low: float
    """Least true return of the band."""
    high: float
    """Greatest true return of the band."""
    count: int
    correlation: Interval


def rank_correlation(
    rewards: Episodes,
    returns: Episodes,
    *,
    kind: Rank = "spearman",
    seed: int = 0,
    resamples: int = 500,
) -> Interval:
    """Spearman's rho or Kendall's tau-b over episodes, with a bootstrap interval.

    NaN if either argument is constant: it then ranks nothing.

    Raises:
        ValueError: for arguments of unequal length or an unknown kind.
    """
    measure = _MEASURES[choose("rank correlation", kind, _MEASURES)]

    def correlation(x: np.ndarray, y: np.ndarray) -> float:
        if np.ptp(x) == 0 or np.ptp(y) == 0:
            return np.nan
        return float(measure(x, y).statistic)

    pair = paired(rewards, returns, "rewards and returns")
    return bootstrap(correlation, pair, seed=seed, resamples=resamples)


def rank_correlation_by_band(
    rewards: Episodes,
    returns: Episodes,
    *,
    num_bands: int = 4,
    kind: Rank = "spearman",
    seed: int = 0,
    resamples: int = 500,
) -> list[Band]:
    """Rank correlation within quantile bands of the true return, lowest band first.

    To tell an expert from a novice is easy; the bands ask whether the reward also
    orders episodes of similar quality. Episodes of equal return share a band.

    Raises:
        ValueError: if a band has fewer than two episodes.
    """
    x, y = paired(rewards, returns, "rewards and returns")
    # The midrank keeps ties together: they fall into the band of their middle.
    share = (rankdata(y) - 0.5) / len(y)
    index = np.minimum((share * num_bands).astype(int), num_bands - 1)
    bands = []
    for band in range(num_bands):
        rows = index == band
        if rows.sum() < 2:
            raise ValueError(
                f"band {band} of {num_bands} has {rows.sum()} of {len(y)} episodes; "
                "use fewer bands or more episodes"
            )
        value = rank_correlation(
            x[rows], y[rows], kind=kind, seed=seed, resamples=resamples
        )
        ends = float(y[rows].min()), float(y[rows].max())
        bands.append(Band(*ends, int(rows.sum()), value))
    return bands


def preference_accuracy(
    rewards: Episodes,
    returns: Episodes,
    *,
    min_gap: float = 0.0,
    seed: int = 0,
    resamples: int = 200,
) -> Interval:
    """Share of episode pairs that the reward orders as their true returns.

    Over all pairs whose true returns differ by more than ``min_gap``; a tie of the
    reward counts half, so that a constant reward gets 0.5.

    Raises:
        ValueError: if no pair differs by more than ``min_gap``.
    """
    x, y = paired(rewards, returns, "rewards and returns")
    if np.ptp(y) <= min_gap:
        raise ValueError(
            f"no two returns differ by more than min_gap={min_gap:g} "
            f"(range {np.ptp(y):g}); lower it"
        )
    return bootstrap(
        lambda x, y: _accuracy(x, y, min_gap), (x, y), seed=seed, resamples=resamples
    )


def balanced_accuracy(
    expert: Float[np.ndarray, " experts"],
    base: Float[np.ndarray, " bases"],
    *,
    threshold: float,
    seed: int = 0,
    resamples: int = 500,
) -> Interval:
    """Mean of the shares of experts above a threshold and of bases not above it.

    0.5 is chance whatever the numbers of each. Fit the threshold on other samples, see
    :func:`best_threshold`; the interval resamples expert and base separately and leaves
    the threshold where it is.
    """

    def accuracy(expert: np.ndarray, base: np.ndarray) -> float:
        return float(((expert > threshold).mean() + (base <= threshold).mean()) / 2)

    groups = (np.asarray(expert, float),), (np.asarray(base, float),)
    return bootstrap(accuracy, *groups, seed=seed, resamples=resamples)


def best_threshold(
    expert: Float[np.ndarray, " experts"], base: Float[np.ndarray, " bases"]
) -> float:
    """Threshold of greatest balanced accuracy, half way between two values seen."""
    values = np.unique(np.concatenate([expert, base]))
    between = (values[1:] + values[:-1]) / 2
    if not between.size:
        return float(values[0])
    above = 1 - np.searchsorted(np.sort(expert), between, "right") / len(expert)
    below = np.searchsorted(np.sort(base), between, "right") / len(base)
    return float(between[np.argmax(above + below)])


def auroc(
    expert: Float[np.ndarray, " experts"],
    base: Float[np.ndarray, " bases"],
    *,
    seed: int = 0,
    resamples: int = 500,
) -> Interval:
    """P[reward of an expert episode > reward of a base episode], ties counted half.

    The interval resamples expert and base episodes separately.
    """
    groups = (np.asarray(expert, float),), (np.asarray(base, float),)
    return bootstrap(mann_whitney, *groups, seed=seed, resamples=resamples)


def mann_whitney(
    positive: Float[np.ndarray, " positives"], negative: Float[np.ndarray, " negatives"]
) -> float:
    """P[positive > negative], ties counted half: U over its maximum, without interval."""
    ranks = rankdata(np.concatenate([positive, negative]))
    mean = ranks[: len(positive)].mean()
    return float((mean - (len(positive) + 1) / 2) / len(negative))


_MEASURES: dict[str, Callable[..., Any]] = {"spearman": spearmanr, "kendall": kendalltau}


def _accuracy(x: np.ndarray, y: np.ndarray, min_gap: float) -> float:
    order = np.argsort(y, kind="stable")
    x, y = x[order], y[order]
    # Number of episodes that each one beats by more than the gap: a prefix of y.
    beaten = np.searchsorted(y, y - min_gap, side="left")
    wins = sum(
        (x[:k] < x[i]).sum() + 0.5 * (x[:k] == x[i]).sum()
        for i, k in enumerate(beaten)
        if k
    )
    total = beaten.sum()
    return float(wins / total) if total else np.nan
