"""What extractors are given: models, samples, labels, and how hard to try."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float

from diffreward.data.normaliser import Normaliser
from diffreward.diffusion import Schedule
from diffreward.reward import Pair
from diffreward.types import AnyArray


class Preferences(NamedTuple):
    """Labelled pairs of clean samples: row i of ``preferred`` was chosen over ``other``."""

    preferred: Float[AnyArray, "pairs ..."]
    other: Float[AnyArray, "pairs ..."]


class Source(NamedTuple):
    """Everything an extractor may learn from; it names what it misses.

    Samples are in the coordinates of the pair, one per row, of any equal shape.
    """

    pair: Pair | None = None
    """The two diffusion models."""
    base: Float[AnyArray, "base ..."] | None = None
    """Clean samples of the base's data."""
    expert: Float[AnyArray, "expert ..."] | None = None
    """Clean samples of the expert's data."""
    returns: Float[AnyArray, " samples"] | None = None
    """True return of every sample, base first, then expert."""
    preferences: Preferences | None = None
    pinned: Bool[Array, "..."] | None = None
    """Entries that are a condition: shown clean at every level, in no loss."""
    normaliser: Normaliser | None = None
    """Coordinates of all of the above, kept with the reward."""


class FitSettings(NamedTuple):
    """Compute and choices of an extractor; each reads the fields it has a use for."""

    steps: int = 2000
    """Optimiser steps."""
    batch_size: int = 128
    learning_rate: float = 3e-3
    network: Any = None
    """Linen module of (x_t, t): to a scalar, for ``energy_pair`` to a trajectory; None
    for a perceptron of the width and depth below."""
    width: int = 64
    depth: int = 2
    schedule: Schedule | None = None
    """Noise levels; those of the pair by default."""
    weighting: str = "integral"
    """Weights of ``loss_gap``."""
    beta: float = 1.0
    """Temperature of the ``dpo`` weights."""
    noises: int = 16
    """Noises per level (``loss_gap``) or paths (``ito_log_ratio``)."""
    probes: int = 0
    """Hutchinson probes of ``ode_log_ratio``; 0 for the exact divergence."""
    steps_per_dispatch: int = 500
    """Optimiser steps per compiled call."""
    progress: bool = False
    """Show the progress of training on stderr."""


def require(extractor: str, source: Source, *parts: str) -> None:
    """Refuses a source without the parts an extractor needs.

    Raises:
        ValueError: that names them all.
    """
    missing = [p for p in parts if getattr(source, p) is None]
    if missing:
        raise ValueError(
            f"{extractor} needs {' and '.join(parts)}; Source has no "
            f"{' and no '.join(missing)}"
        )


def pair_of(extractor: str, source: Source) -> Pair:
    """The two models of a source.

    Raises:
        ValueError: without them.
    """
    require(extractor, source, "pair")
    assert source.pair is not None  # to the type checker
    return source.pair


def check(extractor: str, source: Source) -> tuple[int, ...] | None:
    """Shape of one sample; refuses samples and labels that do not belong together.

    Raises:
        ValueError: with both shapes.
    """
    shapes = {
        name: np.shape(rows)[1:]
        for name, rows in (
            ("base", source.base),
            ("expert", source.expert),
            ("preferences.preferred", getattr(source.preferences, "preferred", None)),
            ("preferences.other", getattr(source.preferences, "other", None)),
        )
        if rows is not None
    }
    if len(set(shapes.values())) > 1:
        raise ValueError(f"{extractor}: samples of one shape are needed, got {shapes}")
    shape = next(iter(shapes.values()), None)
    if source.pinned is not None and shape is not None and source.pinned.shape != shape:
        raise ValueError(
            f"{extractor}: pinned has shape {source.pinned.shape}, samples have {shape}"
        )
    count = sum(len(rows) for rows in (source.base, source.expert) if rows is not None)
    if source.returns is not None and len(source.returns) != count:
        raise ValueError(
            f"{extractor}: {len(source.returns)} returns for {count} samples of base and "
            "expert; give one each, base first"
        )
    return shape


def schedule_of(extractor: str, source: Source, settings: FitSettings) -> Schedule:
    """The noise levels asked for, else those of the pair.

    Raises:
        ValueError: if neither is there, or a pair has others than those asked for.
    """
    if settings.schedule is not None:
        if source.pair is not None and not np.array_equal(
            settings.schedule.alpha_bar, source.pair.schedule.alpha_bar
        ):
            raise ValueError(
                f"{extractor}: settings.schedule differs from the pair's; leave it None"
            )
        return settings.schedule
    if source.pair is None:
        raise ValueError(
            f"{extractor} needs noise levels; give a pair or settings.schedule"
        )
    return source.pair.schedule
