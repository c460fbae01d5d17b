"""The zoo of extractors: one interface from models or samples to a reward."""

from diffreward.extract.source import FitSettings, Preferences, Source
from diffreward.extract.zoo import EXTRACTORS, fit

__all__ = ["EXTRACTORS", "FitSettings", "Preferences", "Source", "fit"]
