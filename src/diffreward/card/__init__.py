"""Reward cards: an extracted reward and everything needed to use it again."""

from diffreward.card.files import check_place, load, open_card, read_card, save, verify
from diffreward.card.numpy_export import NotExportable, numpy_source
from diffreward.card.reward import (
    UNITS,
    Form,
    Reward,
    network_reward,
    score,
    score_samples,
    score_units,
)
from diffreward.files import sha256

__all__ = [
    "UNITS",
    "Form",
    "NotExportable",
    "Reward",
    "check_place",
    "load",
    "network_reward",
    "numpy_source",
    "open_card",
    "read_card",
    "save",
    "score",
    "score_samples",
    "score_units",
    "sha256",
    "verify",
]
