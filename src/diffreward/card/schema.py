"""What may stand in a card: every entry is checked before anything is made of it."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffreward.diffusion import Schedule, is_part_name
from diffreward.reward import UNITS

AXES = 8
"""Axes that a sample may have."""
NESTING = 8
"""Levels of objects within each other that a card may have."""
PARTS = 64
"""Arrays that a context may have."""
TENSORS = 4096
"""Arrays that a card may have."""
NORMALISED, AS_GIVEN = "data units, normalised inside", "as given"


def check_card(card: Any, path: Path, formats: str) -> dict[str, Any]:
    """A card's entries, known and of the right types.

    Args:
        card: parsed ``card.json``.
        path: of the file, for messages.
        formats: the format that this version reads.

    Raises:
        ValueError: naming the first entry that is missing, unknown or wrong.
    """
    found = card.get("format") if isinstance(card, dict) else None
    if found != formats:
        raise ValueError(
            f"{path} has format {_brief(found)}; this version reads {formats!r}"
        )
    if missing := [k for k in ENTRIES if k not in card]:
        raise ValueError(f"{path} is incomplete: no {', '.join(missing)}")
    if unknown := [k for k in card if k not in ENTRIES]:
        raise ValueError(
            f"{path} has the unknown entry {_brief(unknown[0])}; it was made by another "
            "version"
        )
    for name, (holds, wanted) in ENTRIES.items():
        if not holds(card[name]):
            raise ValueError(
                f"{path}: {name} must be {wanted}, got {_brief(card[name])}; copy the card "
                "again"
            )
    return card


def check_tensors(
    tensors: Mapping[str, np.ndarray],
    shape: tuple[int, ...],
    coordinates: str,
    conditioned: int,
) -> None:
    """Everything in the weights but the parameters: names, sizes, numbers.

    Args:
        tensors: of the weights, by name.
        shape: of one sample.
        coordinates: what the card says of them.
        conditioned: how many entries the card says are a condition.

    Raises:
        ValueError: naming the first that is missing, unknown or wrong.
    """
    if len(tensors) > TENSORS:
        raise ValueError(f"{len(tensors)} arrays are more than the {TENSORS} of any card")
    wanted = {f"schedule/{name}" for name in Schedule._fields}
    if coordinates == NORMALISED:
        wanted |= {"normaliser/shift", "normaliser/scale"}
    if conditioned:
        wanted.add("pinned")
    free = ("params/", "const/")
    named = {name for name in tensors if not name.startswith(free)}
    if odd := sorted(named ^ wanted):
        where = "the weights lack" if odd[0] in wanted else "the card knows no"
        raise ValueError(f"{where} {odd[0]}")
    for name, values in tensors.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ValueError(f"{name} holds a number that is not finite")
    levels = {tensors[f"schedule/{name}"].shape for name in Schedule._fields}
    if len(levels) > 1 or len(next(iter(levels))) != 1 or not min(levels)[0]:
        raise ValueError(f"the noise levels have the shapes {sorted(levels)}")
    if conditioned:
        check_pinned(tensors["pinned"], shape, conditioned)
    for name in sorted(wanted - {"pinned"}):
        if tensors[name].dtype != np.float32:
            raise ValueError(f"{name} is {tensors[name].dtype}, a card has float32")
        if name.startswith("normaliser/") and tensors[name].shape not in ((), shape[-1:]):
            raise ValueError(
                f"{name} has shape {tensors[name].shape}, samples have {shape}"
            )
    if coordinates == NORMALISED and not (tensors["normaliser/scale"] > 0).all():
        raise ValueError("normaliser/scale must be positive")


def check_pinned(pinned: np.ndarray, shape: tuple[int, ...], conditioned: int) -> None:
    """Which entries are a condition: flags of a sample, as many as the card says.

    Raises:
        ValueError: for anything else.
    """
    if pinned.dtype != np.bool_ or pinned.shape != shape or pinned.sum() != conditioned:
        raise ValueError(
            f"pinned is {pinned.dtype} of shape {pinned.shape} with {int(pinned.sum())} "
            f"entries set; the card says {conditioned} of {shape}"
        )


def context_size(context: Mapping[str, Any]) -> int:
    """Numbers in the vector of a sample and its context."""
    shapes = [context["sample"], *context["parts"].values()]
    return sum(math.prod(shape) for shape in shapes)


def is_number(value: Any) -> bool:
    """A finite number; None stands for one that is not known."""
    if value is None:
        return True
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value)


def is_plain_name(value: Any) -> bool:
    """The name of a file, without a path."""
    return (
        isinstance(value, str)
        and Path(value).name == value
        and value not in (".", "..")
        and "\0" not in value
        and "\\" not in value
        and len(value.encode(errors="replace")) <= 200
    )


def depth(value: Any) -> int:
    """Levels of objects and lists within each other."""
    deepest, layer = 0, [value]
    while layer:
        layer = [
            part
            for outer in layer
            if isinstance(outer, dict | list)
            for part in (outer.values() if isinstance(outer, dict) else outer)
        ]
        deepest += bool(layer)
    return deepest


def _is_digest(value: Any) -> bool:
    return (
        isinstance(value, str)
        and len(value) == 64
        and not set(value) - set("0123456789abcdef")
    )


def _is_shape(value: Any) -> bool:
    whole = isinstance(value, list) and all(type(n) is int for n in value)
    return whole and 0 < len(value) <= AXES and all(0 < n < 2**31 for n in value)


def _is_context(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict) or value.keys() != {"sample", "parts"}:
        return False
    parts = value["parts"]
    if not isinstance(parts, dict) or not 0 < len(parts) <= PARTS:
        return False
    return all(map(is_part_name, parts)) and all(
        _is_shape(shape) or shape == [] for shape in (value["sample"], *parts.values())
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_tree(value: Any) -> bool:
    return isinstance(value, dict) and depth(value) <= NESTING


def _are_measures(value: Any) -> bool:
    return isinstance(value, dict) and all(
        is_number(v) or (isinstance(v, list) and all(map(is_number, v)))
        for v in value.values()
    )


def _are_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_number, value.values()))


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_figures(value: Any) -> bool:
    return isinstance(value, dict) and all(
        is_plain_name(k) and _is_digest(v) for k, v in value.items()
    )


TEXT = (_is_text, "text")
DIGEST = (_is_digest, "a digest of 64 letters")
TREE = (_is_tree, f"an object of at most {NESTING} levels")
ENTRIES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "format": TEXT,
    "diffreward": TEXT,
    "jax": TEXT,
    "extractor": TEXT,
    "network": TREE,
    "shape": (_is_shape, f"1 to {AXES} whole numbers from 1 on"),
    "units": (lambda v: _is_text(v) and v in UNITS, f"one of {', '.join(UNITS)}"),
    "coordinates": (
        lambda v: v in (NORMALISED, AS_GIVEN),
        f"{NORMALISED!r} or {AS_GIVEN!r}",
    ),
    "conditioned": (lambda v: type(v) is int and v >= 0, "a number of entries"),
    "context": (
        _is_context,
        "null, or the shape of a sample and of every part of its context, by name",
    ),
    "weights_sha256": DIGEST,
    "score_sha256": (lambda v: v is None or _is_digest(v), f"{DIGEST[1]}, or null"),
    "provenance": TREE,
    "cost": (_are_numbers, "an object of numbers"),
    "measures": (_are_measures, "an object of numbers and lists of numbers"),
    "limits": (_are_texts, "a list of sentences"),
    "figures": (_are_figures, "an object of plain file names and their digests"),
}
"""Every entry of a card: what it may be, as a test and in words."""


def _brief(value: Any) -> str:
    text = repr(value) if depth(value) <= NESTING else type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}..."
