"""Extract, measure and use the reward that separates two diffusion models.

    import diffreward as dr

Names and packages are imported when they are first used, so that ``import diffreward``
alone takes no time.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffreward import card as card
    from diffreward import data as data
    from diffreward import diffusion as diffusion
    from diffreward import extract as extract
    from diffreward import interop as interop
    from diffreward import learn as learn
    from diffreward import measures as measures
    from diffreward import networks as networks
    from diffreward import report as report
    from diffreward import reward as reward
    from diffreward import steer as steer
    from diffreward import train as train
    from diffreward import types as types
    from diffreward.api import (
        DiffusionModel,
        Findings,
        Pair,
        Reward,
        ToyPair,
        context_layout,
        draw_samples,
        fit,
        guide,
        load,
        make_pair,
        measure,
        save,
        score,
        toy_pair,
    )

__version__ = "0.1.0"

_PACKAGES = (
    *("card", "data", "diffusion", "extract", "interop", "learn", "measures"),
    *("networks", "report", "reward", "steer", "train", "types"),
)

__all__ = [
    "DiffusionModel",
    "Findings",
    "Pair",
    "Reward",
    "ToyPair",
    "context_layout",
    "draw_samples",
    "fit",
    "guide",
    "load",
    "make_pair",
    "measure",
    "save",
    "score",
    "toy_pair",
]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"diffreward.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'diffreward' has no attribute {name!r}")
    value = getattr(importlib.import_module("diffreward.api"), name)
    globals()[name] = value  # asked once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PACKAGES})
