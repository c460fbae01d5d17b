"""Rewards: pairs of models, gradient alignment, and measures of a reward."""

from diffreward.reward.alignment import (
    Alignment,
    Preset,
    align,
    alignment_loss,
    value_scale,
)
from diffreward.reward.log_ratio import elbo_weights, log_ratio
from diffreward.reward.pair import (
    Pair,
    make_pair,
    posterior_means,
    relative_score,
)

__all__ = [
    "Alignment",
    "Pair",
    "Preset",
    "align",
    "alignment_loss",
    "elbo_weights",
    "log_ratio",
    "make_pair",
    "posterior_means",
    "relative_score",
    "value_scale",
]
