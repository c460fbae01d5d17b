"""Reward cards: an extracted reward and everything needed to use it again."""

from diffreward.card.files import load, read_card, save, sha256
from diffreward.card.numpy_export import NotExportable, numpy_source
from diffreward.card.reward import Reward, network_reward, score, score_samples

__all__ = [
    "NotExportable",
    "Reward",
    "load",
    "network_reward",
    "numpy_source",
    "read_card",
    "save",
    "score",
    "score_samples",
    "sha256",
]
