"""Rewards: pairs of models, gradient alignment, and measures of a reward."""

from diffreward.reward.agreement import Agreement, agreement, paired_values
from diffreward.reward.alignment import (
    Alignment,
    align_means,
    align_scores,
    alignment_loss,
    unexplained,
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
from diffreward.reward.objective import (
    OBJECTIVES,
    PAPER,
    SCORE,
    Objective,
    score_scale,
)
from diffreward.reward.pair import (
    Pair,
    make_pair,
    posterior_means,
    relative_score,
    said_of_early_end,
)
from diffreward.reward.record import (
    RANKING,
    UNITS,
    Form,
    Reward,
    network_reward,
    score,
    score_samples,
    score_units,
)
from diffreward.reward.values import level_values, noised_values

__all__ = [
    "OBJECTIVES",
    "PAPER",
    "RANKING",
    "SCORE",
    "UNITS",
    "Form",
    "Objective",
    "Reward",
    "align_means",
    "align_scores",
    "network_reward",
    "level_values",
    "noised_values",
    "score",
    "score_samples",
    "score_scale",
    "score_units",
    "Agreement",
    "Alignment",
    "Conservativity",
    "LatentStandards",
    "Pair",
    "RecordedChains",
    "agreement",
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
    "said_of_early_end",
    "steps_left",
    "unexplainable_by_level",
    "unexplained",
]
