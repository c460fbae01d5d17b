"""What extractors are given: models, samples and labels."""

from typing import NamedTuple

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
    """Entries that are a condition: shown clean at every level, in no loss; by default
    those of the pair."""
    normaliser: Normaliser | None = None
    """Coordinates of all of the above, kept with the reward."""
    schedule: Schedule | None = None
    """Noise levels to learn at where there is no pair, which has its own."""


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
    """Shape of one sample; refuses samples, labels and levels that do not belong together.

    Raises:
        ValueError: with both shapes, or if the pair has other levels than those given.
    """
    pair, given = source.pair, source.schedule
    if pair and given and not np.array_equal(given.alpha_bar, pair.schedule.alpha_bar):
        raise ValueError(
            f"{extractor}: Source.schedule differs from the pair's; leave it None"
        )
    if pair:
        pair.check_pinned(source.pinned)
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


def schedule_of(extractor: str, source: Source) -> Schedule:
    """The noise levels of the pair, else those given.

    Raises:
        ValueError: if neither is there.
    """
    if source.pair is not None:
        return source.pair.schedule
    if source.schedule is None:
        raise ValueError(f"{extractor} needs noise levels; give Source.pair or .schedule")
    return source.schedule
