"""Reward cards: an extracted reward and everything needed to use it again."""

from diffreward.card.files import check_place, load, open_card, read_card, save, verify
from diffreward.card.numpy_export import NotExportable, numpy_source
from diffreward.files import sha256

__all__ = [
    "NotExportable",
    "check_place",
    "load",
    "numpy_source",
    "open_card",
    "read_card",
    "save",
    "sha256",
    "verify",
]
