"""Reward cards: an extracted reward and everything needed to use it again."""

from diffreward.card.files import check_place, load, open_card, read_card, save, verify
from diffreward.card.numpy_export import NotExportable, numpy_source
from diffreward.card.reward import Reward, network_reward, score, score_samples
from diffreward.files import sha256

__all__ = [
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
    "sha256",
    "verify",
]
