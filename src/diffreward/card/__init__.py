"""Reward cards: an extracted reward and everything needed to use it again."""

from diffreward.card.files import check_place, load, open_card, read_card, save, verify
from diffreward.card.numpy_export import NotExportable, numpy_source
from diffreward.files import sha256
from diffreward.reward import Reward, network_reward

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
    "sha256",
    "verify",
]
