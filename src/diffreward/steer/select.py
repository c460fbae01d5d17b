"""Choosing a guidance scale on validation episodes, and only there.

Selection returns a :class:`Choice` that remembers its seeds; the test score is another
function, which takes a finished choice and refuses any of those seeds. No call can
search on the episodes it reports.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from diffreward.weights import effective_sample_size

Evaluate = Callable[[float, Sequence[int]], np.ndarray]
"""Metric of every episode, higher is better, from (scale, seeds): one number a seed, or
a row of them for every member of a population that shares the scale."""


class Point(NamedTuple):
    """What validation says of one scale."""

    scale: float
    mean: float
    standard_error: float
    kl: float
    """KL of the steered model to the base, nats; NaN if no estimate was given."""
    ess: float
    """Share of base samples left after weighting by exp(scale rho); NaN likewise."""


class Choice(NamedTuple):
    """The chosen scale, with everything it was chosen from."""

    scale: float
    points: tuple[Point, ...]
    """One per scale tried, in increasing order."""
    seeds: tuple[int, ...]
    """Validation episodes, spent from now on."""


def tilt_ess(rewards: Float[np.ndarray, " samples"], scale: float) -> float:
    """Effective share of base samples under weights exp(scale rho), in (0, 1].

    Near 1 a scale hardly changes the base; near 1 / samples the steered law has left
    what the base produces, and no estimate from base samples holds there.
    """
    rewards = np.asarray(rewards, np.float64)
    return effective_sample_size(scale * rewards) / len(rewards)


def choose_scale(
    evaluate: Evaluate,
    scales: Sequence[float],
    validation_seeds: Sequence[int],
    *,
    one_standard_error: bool = False,
    chain_kl: Callable[[float], float] | None = None,
    base_rewards: np.ndarray | None = None,
    progress: Callable[[Point], object] = lambda point: None,
) -> Choice:
    """Best scale on validation episodes.

    Args:
        evaluate: metric of every validation episode at a scale.
        scales: scales to try; 0, the base, belongs among them.
        validation_seeds: of the episodes.
        one_standard_error: take the smallest scale whose mean lies within one standard
            error of the best (Breiman et al., 1984) instead of the best: the least
            departure from the base that the episodes cannot tell from the best.
        chain_kl: estimate of the KL of the steered model to the base at a scale.
        base_rewards: rewards of base samples in nats, for the effective sample size.
        progress: told every point as it is measured.

    Raises:
        ValueError: without scales or with too few or repeated seeds, or if the metric is
            not one finite number per seed (and member) at a scale.
    """
    tried = sorted({float(s) for s in scales})
    seeds = _distinct("validation_seeds", validation_seeds)
    if not tried:
        raise ValueError("choose_scale: no scales given")
    if len(seeds) < 2:
        raise ValueError(
            f"choose_scale: {len(seeds)} validation seeds; a standard error needs two"
        )
    points = []
    for scale in tried:
        values = _values(evaluate, scale, seeds)
        points.append(
            Point(
                scale=scale,
                mean=float(values.mean()),
                standard_error=_standard_error(values),
                kl=float("nan") if chain_kl is None else float(chain_kl(scale)),
                ess=(
                    float("nan") if base_rewards is None else tilt_ess(base_rewards, scale)
                ),
            )
        )
        progress(points[-1])
    best = max(points, key=lambda p: (p.mean, -abs(p.scale)))
    if one_standard_error:
        near = [p for p in points if p.mean >= best.mean - best.standard_error]
        best = min(near, key=lambda p: abs(p.scale))
    return Choice(best.scale, tuple(points), seeds)


def score_on_test(
    evaluate: Evaluate, choice: Choice, test_seeds: Sequence[int]
) -> Float[np.ndarray, "*members episodes"]:
    """Metric of every test episode at the chosen scale.

    Raises:
        ValueError: if a test seed was used for choosing.
    """
    seeds = _distinct("test_seeds", test_seeds)
    if used := sorted(set(seeds) & set(choice.seeds)):
        raise ValueError(
            f"score_on_test: seed {used[0]} chose the scale ({len(used)} such seeds); "
            "take seeds that validation has not seen"
        )
    return _values(evaluate, choice.scale, seeds)


def _distinct(name: str, seeds: Sequence[int]) -> tuple[int, ...]:
    found = tuple(int(s) for s in seeds)
    if not found or len(set(found)) < len(found):
        raise ValueError(f"{name} must be different numbers, got {list(found)[:8]}")
    return found


def _values(evaluate: Evaluate, scale: float, seeds: tuple[int, ...]) -> np.ndarray:
    values = np.asarray(evaluate(scale, seeds), np.float64)
    fits = values.ndim in (1, 2) and values.shape[-1] == len(seeds)
    if not (fits and np.isfinite(values).all()):
        raise ValueError(
            f"the metric at scale {scale:g} has shape {values.shape} or is not finite; "
            f"expected one number for each of {len(seeds)} seeds"
        )
    return values


def _standard_error(values: np.ndarray) -> float:
    """Of the mean over episodes, which are the same for every member."""
    episodes = values.reshape(-1, values.shape[-1]).mean(0)
    return float(episodes.std(ddof=1) / len(episodes) ** 0.5)
