"""Measures of any reward: ranking, calibration, distances, regret, steering."""

from diffreward.measures.calibration import (
    Calibration,
    Fit,
    Reliability,
    calibration_slope,
    measure_calibration,
    reliability_curve,
)
from diffreward.measures.canonical import (
    Coverage,
    PolicyFn,
    TransitionFn,
    TransitionReward,
    Transitions,
    direction_distance,
    draw_coverage,
)
from diffreward.measures.dard import (
    dard_canonical,
    dard_canonical_table,
    dard_distance,
    dard_distance_table,
)
from diffreward.measures.epic import (
    epic_canonical,
    epic_canonical_table,
    epic_distance,
    epic_distance_table,
)
from diffreward.measures.interval import (
    Interval,
    bootstrap,
    interquartile_mean,
    nested_bootstrap,
)
from diffreward.measures.maps import Concentration, mass_near_goal
from diffreward.measures.ranking import (
    Band,
    auroc,
    mann_whitney,
    preference_accuracy,
    rank_correlation,
    rank_correlation_by_band,
)
from diffreward.measures.regret import PolicyReturns, policy_regret
from diffreward.measures.starc import (
    minimal_canonical_table,
    starc_distance,
    starc_distance_table,
    val_canonical,
    val_canonical_table,
)
from diffreward.measures.steering import (
    SteeringPoint,
    gain_at_kl,
    mean_gain,
    return_at_kl,
)
from diffreward.weights import effective_sample_size

__all__ = [
    "Band",
    "Calibration",
    "Concentration",
    "Coverage",
    "Fit",
    "Interval",
    "PolicyFn",
    "PolicyReturns",
    "Reliability",
    "SteeringPoint",
    "TransitionFn",
    "TransitionReward",
    "Transitions",
    "auroc",
    "bootstrap",
    "calibration_slope",
    "dard_canonical",
    "dard_canonical_table",
    "dard_distance",
    "dard_distance_table",
    "direction_distance",
    "draw_coverage",
    "effective_sample_size",
    "epic_canonical",
    "epic_canonical_table",
    "epic_distance",
    "epic_distance_table",
    "gain_at_kl",
    "interquartile_mean",
    "mann_whitney",
    "mass_near_goal",
    "mean_gain",
    "measure_calibration",
    "minimal_canonical_table",
    "nested_bootstrap",
    "policy_regret",
    "preference_accuracy",
    "rank_correlation",
    "rank_correlation_by_band",
    "reliability_curve",
    "return_at_kl",
    "starc_distance",
    "starc_distance_table",
    "val_canonical",
    "val_canonical_table",
]
