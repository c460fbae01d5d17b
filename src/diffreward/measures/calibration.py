"""Is a reward the log density ratio that it claims to be?

If ``rho`` is log p_expert / p_base up to a constant, the probability that a sample came
from the expert is sigmoid(rho + c): the constant c holds the free constant of rho and
the shares of the two classes. The claim is testable: fitted with a free slope,
sigmoid(slope * rho + c) has slope 1. A reward of 0.05 times the log ratio has slope 20.
Guo et al. (2017) describe the reliability curve and the expected calibration error.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit, log_expit

from diffreward.measures.interval import Interval, paired

Rows = Float[np.ndarray, " rows"]
Labels = Bool[np.ndarray, " rows"]


class Reliability(NamedTuple):
    """Claimed and observed frequency of the expert, per bin of the claim."""

    claimed: Float[np.ndarray, " bins"]
    """Mean claimed probability of the bin; NaN where it is empty."""
    observed: Float[np.ndarray, " bins"]
    counts: np.ndarray


class Calibration(NamedTuple):
    """Quality of the claimed probabilities sigmoid(rho + c)."""

    offset: float
    """Fitted c."""
    log_loss: float
    """In nats per sample; log 2 is a coin with classes of equal size."""
    brier: float
    error: float
    """Expected calibration error."""
    reliability: Reliability


class Fit(NamedTuple):
    """Maximum-likelihood fit of sigmoid(slope * rho + offset)."""

    slope: Interval
    offset: Interval


def measure_calibration(
    rewards: Rows, is_expert: Labels, *, num_bins: int = 10
) -> Calibration:
    """Calibration of the claim that rewards are log ratios in nats (slope 1).

    Only the offset is fitted, since a relative reward leaves it free.

    Args:
        rewards: one reward per independent sample (an episode, not its windows).
        is_expert: True where the sample is the expert's.
        num_bins: equal bins of [0, 1] for the reliability curve.

    Raises:
        ValueError: if one of the classes is missing.
    """
    x, y = _checked(rewards, is_expert)
    offset = _fit_offset(x, y)
    logits = x + offset
    probability = expit(logits)
    curve = reliability_curve(probability, is_expert, num_bins=num_bins)
    gaps = np.abs(curve.claimed - curve.observed)[curve.counts > 0]
    error = float(gaps @ curve.counts[curve.counts > 0] / len(x))
    log_loss = -np.where(y > 0, log_expit(logits), log_expit(-logits)).mean()
    brier = float(np.square(probability - y).mean())
    return Calibration(offset, float(log_loss), brier, error, curve)


def calibration_slope(rewards: Rows, is_expert: Labels) -> Fit:
    """Fits sigmoid(slope * rho + offset) by maximum likelihood (Newton's method).

    The 95 % intervals are Wald's, from the observed information; they hold for
    independent rows. A calibrated log ratio has slope 1.

    Raises:
        ValueError: if a class is missing, the rewards are constant, or a threshold
            separates the classes, so that no finite slope is best.
    """
    x, y = _checked(rewards, is_expert)
    if np.ptp(x) == 0:
        raise ValueError("all rewards are equal; their slope is not defined")
    expert, base = x[y > 0], x[y == 0]
    if expert.min() >= base.max() or expert.max() <= base.min():
        raise ValueError(
            "a threshold on the reward separates expert from base, so no finite slope "
            "is best; use more samples, or noisier ones"
        )
    # Standardised, the problem is well conditioned whatever the units of the reward.
    centre, scale = x.mean(), x.std()
    design = np.stack([(x - centre) / scale, np.ones_like(x)], 1)
    weights, information = _newton(design, y)
    slope, level = weights
    back = np.array([[1 / scale, 0.0], [-centre / scale, 1.0]])
    covariance = back @ np.linalg.inv(information) @ back.T
    half = 1.959964 * np.sqrt(np.diag(covariance))
    values = np.array([slope / scale, level - slope * centre / scale])
    return Fit(*(Interval(v, v - h, v + h) for v, h in zip(values, half, strict=True)))


def reliability_curve(
    probability: Rows, is_expert: Labels, *, num_bins: int = 10
) -> Reliability:
    """Mean claimed probability, observed frequency and count per equal-width bin.

    Raises:
        ValueError: if a probability lies outside [0, 1].
    """
    p, y = paired(probability, is_expert, "probabilities and labels")
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"probabilities must lie in [0, 1], got [{p.min()}, {p.max()}]")
    index = np.minimum((p * num_bins).astype(int), num_bins - 1)
    counts = np.bincount(index, minlength=num_bins)
    known = np.maximum(counts, 1)
    claimed, observed = (
        np.where(counts > 0, np.bincount(index, v, num_bins) / known, np.nan)
        for v in (p, y)
    )
    return Reliability(claimed, observed, counts)


def _checked(rewards: np.ndarray, is_expert: np.ndarray) -> tuple[np.ndarray, ...]:
    x, y = paired(rewards, is_expert, "rewards and labels")
    if not 0 < y.sum() < len(y):
        raise ValueError(
            f"calibration needs both classes; {int(y.sum())} of {len(y)} are expert"
        )
    return x, y


def _fit_offset(x: np.ndarray, y: np.ndarray) -> float:
    """The c for which sigmoid(x + c) has the observed mean; one exists, by monotony."""
    target = y.mean()
    spread = np.log(target / (1 - target))
    low, high = spread - x.max() - 1, spread - x.min() + 1
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if expit(x + middle).mean() < target else (low, middle)
    return float((low + high) / 2)


def _newton(design: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of a logistic regression and their observed information."""

    def loss(weights: np.ndarray) -> float:
        logits = design @ weights
        return -float(np.where(y > 0, log_expit(logits), log_expit(-logits)).sum())

    weights = np.zeros(design.shape[1])
    for _ in range(100):
        p = expit(design @ weights)
        gradient = design.T @ (p - y)
        information = design.T @ (design * (p * (1 - p))[:, None])
        step = np.linalg.solve(information, gradient)
        # Halved until the (convex) loss falls, Newton's step cannot run away.
        while loss(weights - step) > loss(weights) and np.abs(step).max() > 1e-12:
            step = step / 2
        weights = weights - step
        if np.abs(step).max() < 1e-10:
            break
    return weights, information
