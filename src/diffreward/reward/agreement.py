"""Agreement of a reward with the training-free log density ratio of its pair.

Both claim to be log p_expert / p_base in nats, up to a constant, and are computed in
unlike ways: one from gradients, the other from denoising errors, by the ``integral``
weighting. (The gap of two variational bounds is no log ratio: at 20 to 100 levels exact
rewards would seem to be uncalibrated by a factor of 1.1 to 3.6.)
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.stats import bootstrap, spearmanr

from diffreward.reward.log_ratio import log_ratio
from diffreward.reward.pair import Pair
from diffreward.reward.values import level_values
from diffreward.types import Mask, PRNGKey, RewardFn, Sample, Scalar, Step

Triple = tuple[float, float, float]


class Agreement(NamedTuple):
    """Three numbers, each with the ends of its 95 % bootstrap interval."""

    correlation: Triple
    slope: Triple
    """Nats of log ratio per unit of reward: 1 for a reward in nats."""
    rank_correlation: Triple


def paired_values(
    reward_fn: RewardFn,
    pair: Pair,
    key: PRNGKey,
    x_0: Sample,
    *,
    level: Step | int = 0,
    pinned: Mask | None = None,
    mask: Mask | None = None,
    num_noises: int = 1,
) -> tuple[Scalar, Scalar]:
    """Reward and estimated log ratio of one clean sample.

    Args:
        reward_fn: reward of (x_t, t).
        pair: the pair it was extracted from.
        key: key of the noises.
        x_0: clean sample.
        level: noise level of the reward. At 0 an exact reward is the log ratio of
            (almost) clean samples; at higher levels it is that of blurred ones.
        pinned: conditioned entries; the ratio is conditional on them.
        mask: entries that count in the log ratio.
        num_noises: noises averaged, per level for the log ratio.
    """
    ratio_key, reward_key = jax.random.split(key)
    options = {"pinned": pinned, "mask": mask, "num_noises": num_noises}
    ratio = log_ratio(pair, ratio_key, x_0, **options).sum()
    keys = jax.random.split(reward_key, num_noises)
    eps = jax.vmap(lambda k: jax.random.normal(k, x_0.shape))(keys)
    t = jnp.asarray(level, jnp.int32)
    values = level_values(reward_fn, pair.schedule, x_0, t, eps, pinned=pinned)
    return values.mean(), ratio


def agreement(
    rewards: Float[np.ndarray, " samples"],
    log_ratios: Float[np.ndarray, " samples"],
    *,
    seed: int = 0,
    resamples: int = 500,
) -> Agreement:
    """Correlation, slope and rank correlation of rewards and log ratios.

    The slope is that of the log ratio on the reward. The log ratio is the one with
    sampling noise, which lowers the correlations but leaves this slope where it is.

    Raises:
        ValueError: for fewer than three samples, or rewards or ratios that are constant.
    """
    x, y = np.asarray(rewards, np.float64), np.asarray(log_ratios, np.float64)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        raise ValueError(
            f"agreement needs at least three samples that differ; got {len(x)} with "
            f"rewards in [{x.min(initial=np.inf):g}, {x.max(initial=-np.inf):g}]"
        )

    # Of few samples a resample may have one alone, which says nothing: 0.
    def alike(x: np.ndarray, y: np.ndarray) -> bool:
        return bool(np.ptp(x) == 0 or np.ptp(y) == 0)

    def correlation(x: np.ndarray, y: np.ndarray) -> float:
        return 0.0 if alike(x, y) else np.corrcoef(x, y)[0, 1]

    def slope(x: np.ndarray, y: np.ndarray) -> float:
        return 0.0 if alike(x, y) else np.polyfit(x, y, 1)[0]

    def rank(x: np.ndarray, y: np.ndarray) -> float:
        return 0.0 if alike(x, y) else spearmanr(x, y).statistic  # pyright: ignore

    def triple(statistic: Callable[..., float]) -> Triple:
        result = bootstrap(
            (x, y),
            statistic,
            n_resamples=resamples,
            paired=True,
            vectorized=False,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
        low, high = result.confidence_interval
        return float(statistic(x, y)), float(low), float(high)

    return Agreement(triple(correlation), triple(slope), triple(rank))
