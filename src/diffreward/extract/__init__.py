"""The zoo of extractors: one interface from models or samples to a reward."""

from diffreward.extract.loss_gap import WEIGHTINGS
from diffreward.extract.run import OtherRun, has_steps, run_record
from diffreward.extract.source import FitSettings, Preferences, Source
from diffreward.extract.truth import (
    Accuracy,
    Comparison,
    accuracy,
    compare,
    exact_pair,
    exact_source,
)
from diffreward.extract.zoo import EXTRACTORS, fit
from diffreward.reward import Reward

__all__ = [
    "EXTRACTORS",
    "WEIGHTINGS",
    "Accuracy",
    "Comparison",
    "FitSettings",
    "OtherRun",
    "Preferences",
    "Reward",
    "Source",
    "accuracy",
    "compare",
    "exact_pair",
    "exact_source",
    "fit",
    "has_steps",
    "run_record",
]
