"""The zoo of extractors: one interface from models or samples to a reward."""

from diffreward.extract.loss_gap import WEIGHTINGS
from diffreward.extract.network import IMAGE_NETWORKS, image_network
from diffreward.extract.run import OtherRun, has_steps, run_record
from diffreward.extract.settings import (
    ItoLogRatio,
    LineIntegral,
    LossGap,
    OdeLogRatio,
    Training,
)
from diffreward.extract.source import Preferences, Source
from diffreward.extract.truth import (
    Accuracy,
    Comparison,
    accuracy,
    compare,
    exact_pair,
    exact_source,
)
from diffreward.extract.zoo import EXTRACTORS, Extractor, fit
from diffreward.reward import Reward

__all__ = [
    "EXTRACTORS",
    "IMAGE_NETWORKS",
    "WEIGHTINGS",
    "Accuracy",
    "Comparison",
    "Extractor",
    "ItoLogRatio",
    "LineIntegral",
    "LossGap",
    "OdeLogRatio",
    "OtherRun",
    "Preferences",
    "Reward",
    "Source",
    "Training",
    "accuracy",
    "compare",
    "exact_pair",
    "exact_source",
    "fit",
    "has_steps",
    "image_network",
    "run_record",
]
