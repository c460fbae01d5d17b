"""Named tensors from any checkpoint file or folder.

A folder as published holds the same weights several times: whole or in shards, in two
formats, in half precision (``fp16``) or before averaging (``non_ema``) beside the main
ones. ``choose`` says which is read.
"""

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffreward import files, text
from diffreward.interop import safetensors_file
from diffreward.interop.torch_zip import parse_torch

STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
"""Names of weights in published folders; other files beside these are not read."""
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
LOWER = ("fp32", "fp16", "bf16")
"""Variants that are the main weights in another precision, best first."""
WRAPPERS = {
    "module",
    "_orig_mod",
    "_forward_module",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
}
"""Parts of names that data parallelism, compilation and sharding add."""


class Weights(NamedTuple):
    """Of one checkpoint."""

    tensors: dict[str, np.ndarray]
    header: dict[str, str]
    """What a safetensors file says of itself."""


class Choice(NamedTuple):
    """One copy of the weights in a folder: a file, or the index of its shards."""

    path: Path
    variant: str
    """Empty for the main weights."""


@files.contained
def read_tensors(path: str | Path, variant: str | None = None) -> dict[str, np.ndarray]:
    """Tensors by name, without the names of wrappers.

    Args:
        path: a ``.safetensors`` or PyTorch zip file, told apart by their first bytes; or
            a folder with one such file or index, or with several variants.
        variant: of the weights in a folder.

    Raises:
        ValueError: if there is no such file, or it is damaged or holds anything else.
    """
    return read_weights(path, variant).tensors


def read_weights(path: str | Path, variant: str | None = None) -> Weights:
    """As :func:`read_tensors`, with the header of a safetensors file."""
    path = Path(path)
    if not path.is_dir():
        if variant:
            raise ValueError(f"{path} is one file, without a variant {variant!r}")
        return _named(path)
    chosen = choose(path, variant)
    if chosen.path.suffix == ".json":
        return Weights(unwrapped(_read_shards(path, chosen.path), path), {})
    return _named(chosen.path)


def read_checkpoint(path: str | Path) -> Any:
    """Whatever containers of tensors a file holds.

    Raises:
        ValueError: see :func:`read_tensors`.
    """
    return _read(Path(path))[0]


def count_numbers(folder: Path) -> int | None:
    """Numbers in the weights that a folder is read for; None for PyTorch's files.

    Raises:
        ValueError: as :func:`choose`, or for a file that is damaged at its beginning.
    """
    chosen = choose(folder).path
    paths = [chosen]
    if chosen.suffix == ".json":
        index = files.read_json(chosen)
        places = index.get("weight_map") if isinstance(index, dict) else None
        named = set(places.values()) if isinstance(places, dict) else set()
        paths = [files.inside(folder, name) for name in sorted(named, key=str)]
    total = 0
    for path in paths:
        if not _is_safetensors(path):
            return None
        length = int.from_bytes(files.beginning(path, 8), "little")
        try:
            total += safetensors_file.count_numbers(
                files.beginning(path, 8 + min(length, safetensors_file.LONGEST))[8:]
            )
        except ValueError as error:
            reason = " ".join(str(error).split())[:200]
            raise files.FileValueError(
                f"{path} is no valid safetensors file: {reason}"
            ) from error
    return total


def _read(path: Path) -> tuple[Any, dict[str, str]]:
    if not _is_safetensors(path):
        with files.reading(path) as file:
            # Says what is wrong: truncated, too old, or another kind of file.
            return parse_torch(file), {}
    with files.streaming(path) as stream:
        try:
            found = safetensors_file.parse_safetensors(stream)
            stream.end()
        except Exception as error:
            raise files.FileValueError(
                f"{path} is no valid safetensors file: {' '.join(str(error).split())[:200]}"
            ) from error
    return found


def _is_safetensors(path: Path) -> bool:
    """By the first bytes, and by the name where they say nothing."""
    first = files.beginning(path, 9)
    zipped = first[:4] == b"PK\x03\x04"
    return not zipped and (path.suffix == ".safetensors" or first[8:9] == b"{")


def _named(path: Path) -> Weights:
    found, header = _read(path)
    if not is_state_dict(found):
        raise ValueError(f"{path} holds more than named tensors; give its state dict")
    return Weights(unwrapped(found, path), header)


def is_state_dict(found: Any) -> bool:
    """Whether it is tensors by name, and nothing else."""
    return isinstance(found, dict) and all(
        isinstance(k, str) and isinstance(v, np.ndarray) for k, v in found.items()
    )


def unwrapped(
    tensors: Mapping[str, np.ndarray], where: str | Path
) -> dict[str, np.ndarray]:
    """Tensors without the names of wrappers, at any place of their own.

    Raises:
        ValueError: if two have one name then.
    """
    found: dict[str, np.ndarray] = {}
    for name, value in tensors.items():
        plain = ".".join(part for part in name.split(".") if part not in WRAPPERS)
        if plain in found:
            raise ValueError(
                f"{where} has two tensors {plain}, one of a wrapped network ({name}); save "
                "one of the two"
            )
        found[plain] = value
    return found


def choose(folder: Path, variant: str | None = None) -> Choice:
    """Which of a folder's weights are read.

    The main weights; else the same in another precision; else the only ones. Of these an
    index of shards before a whole file, and safetensors, which needs no trust, before
    PyTorch's format. Anything but the main weights is said on standard error.

    Args:
        folder: with weights.
        variant: to read instead, such as ``fp16`` or ``non_ema``; ``main`` for the main
            ones.

    Raises:
        ValueError: if there are none, or several and none of them comes first.
    """
    try:
        names = sorted(p.name for p in folder.iterdir())
    except OSError as error:
        raise ValueError(f"{folder} cannot be listed: {error.strerror}") from None
    known = [(_variant(name), name) for name in names]
    found = [Choice(folder / name, kind) for kind, name in known if kind is not None]
    if not found:
        others = [n for n in names if n.endswith(SUFFIXES)]
        safe = [n for n in others if n.endswith(".safetensors")]
        found = [Choice(folder / n, "") for n in safe or others]
        if len(found) != 1:
            raise ValueError(
                f"{folder} should hold one weights file, found: "
                f"{', '.join(safe or others) or 'none'}"
            )
    there = sorted({choice.variant for choice in found})
    if variant is not None:
        wanted = "" if variant == "main" else variant
        if wanted not in there:
            raise ValueError(
                f"{folder} has no weights {variant!r}; there are "
                f"{', '.join(v or 'main' for v in there)}"
            )
    else:
        order = [v for v in ("", *LOWER) if v in there] or there
        if order[0] not in ("", *LOWER) and len(order) > 1:
            raise ValueError(
                f"{folder} has no main weights but {', '.join(order)}; say which, or keep "
                "one of them"
            )
        wanted = order[0]
        if wanted:
            text.say(f"{folder} has no main weights; read are its {wanted}", sys.stderr)
    return _first([c for c in found if c.variant == wanted], folder)


def _first(found: list[Choice], folder: Path) -> Choice:
    """Indexes before files, safetensors before others; then it must be one."""
    best = min(_rank(c.path.name) for c in found)
    kept = [c.path for c in found if _rank(c.path.name) == best]
    if len(kept) != 1:
        raise ValueError(
            f"{folder} should hold one weights file, found: "
            f"{', '.join(path.name for path in kept)}"
        )
    return next(c for c in found if c.path == kept[0])


def _rank(name: str) -> tuple[bool, bool]:
    return ".safetensors" not in name, not name.endswith(".json")


def _variant(name: str) -> str | None:
    """``fp16`` of ``model.fp16.safetensors``, of its index too; None for other files."""
    stem, *parts = name.split(".")
    if stem not in STEMS or not parts:
        return None
    if parts[-1] == "json":
        if "index" not in parts[:-1]:
            return None
        parts = [p for p in parts[:-1] if p != "index"]
    kinds = [p for p in parts if f".{p}" in SUFFIXES]
    if len(kinds) != 1:
        return None
    variant = ".".join(p for p in parts if p != kinds[0])
    # Some write the variant before the number of the shard.
    return None if re.search(r"\d{5}-of-\d{5}", variant) else variant


def _read_shards(folder: Path, index: Path) -> dict[str, np.ndarray]:
    found = files.read_json(index)
    places = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{index} is no index of weights: it has no weight_map")
    for name, shard in places.items():
        if not isinstance(shard, str):
            raise ValueError(
                f"{index} says that {name} is in {_short(shard)}, no file name"
            )
    tensors: dict[str, np.ndarray] = {}
    for shard in sorted(set(places.values())):
        own = _read(files.inside(folder, shard))[0]
        if not is_state_dict(own):
            raise ValueError(f"{folder / shard} holds more than named tensors")
        if twice := sorted(own.keys() & tensors.keys()):
            raise ValueError(f"{folder}: {twice[0]} is in two files of {index.name}")
        if astray := sorted(n for n in own if places.get(n) != shard):
            raise ValueError(
                f"{folder / shard} has {astray[0]}, {index.name} does not say so"
            )
        tensors |= own
    if missing := sorted(places.keys() - tensors.keys()):
        raise ValueError(f"{folder}: {index.name} promises {missing[0]}, no file has it")
    return tensors


def finite(tensors: Iterable[tuple[str, np.ndarray]], where: str | Path) -> None:
    """Refuses weights that are no numbers.

    Raises:
        ValueError: naming the first tensor with a NaN or an infinity.
    """
    for name, value in tensors:
        if value.dtype.kind in "iub":
            continue
        with np.errstate(over="ignore"):
            single = value.astype(np.float32, copy=False)
        if not np.isfinite(single).all():
            raise ValueError(f"{where}: {name} has numbers that are NaN or infinite")


def _short(value: Any) -> str:
    return f"a {type(value).__name__}" if not isinstance(value, int) else repr(value)
