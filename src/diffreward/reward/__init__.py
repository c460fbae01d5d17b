"""Rewards: pairs of models, gradient alignment, and measures of a reward."""

from diffreward.reward.agreement import Agreement, agreement, paired_values
from diffreward.reward.alignment import (
    Alignment,
    Preset,
    align,
    alignment_loss,
    value_scale,
)
from diffreward.reward.conservativity import (
    Conservativity,
    conservativity,
    curl_by_level,
    curl_probe,
    unexplainable_by_level,
)
from diffreward.reward.latents import (
    LatentStandards,
    RecordedChains,
    align_latents,
    fit_standards,
    latent_reward,
    steps_left,
)
from diffreward.reward.log_ratio import elbo_weights, integral_weights, log_ratio
from diffreward.reward.pair import (
    Pair,
    make_pair,
    posterior_means,
    relative_score,
)

__all__ = [
    "Agreement",
    "Alignment",
    "Conservativity",
    "LatentStandards",
    "Pair",
    "Preset",
    "RecordedChains",
    "agreement",
    "align",
    "align_latents",
    "alignment_loss",
    "conservativity",
    "curl_by_level",
    "curl_probe",
    "elbo_weights",
    "fit_standards",
    "integral_weights",
    "latent_reward",
    "log_ratio",
    "make_pair",
    "paired_values",
    "posterior_means",
    "relative_score",
    "steps_left",
    "unexplainable_by_level",
    "value_scale",
]
