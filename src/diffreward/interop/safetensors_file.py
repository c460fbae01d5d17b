"""The safetensors format, tensor by tensor: never a second copy of the file in memory.

The library reads files that lie on a disk, or copies of bytes; neither gives the digest of
the very bytes that became tensors without holding them twice. Writing is the library's.
"""

import json
import math
from typing import Any

import ml_dtypes
import numpy as np

from diffreward.files import Stream

LONGEST = 100_000_000
"""Bytes of a header, as in the library."""
DTYPES: dict[str, Any] = {
    "BF16": ml_dtypes.bfloat16,
    "BOOL": np.bool_,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "I8": np.int8,
    "I16": np.int16,
    "I32": np.int32,
    "I64": np.int64,
    "U8": np.uint8,
    "U16": np.uint16,
    "U32": np.uint32,
    "U64": np.uint64,
}
"""Types of tensors by their names in a file."""


def count_numbers(header: bytes) -> int:
    """Numbers of all tensors, by the header of a file (without its length).

    Raises:
        ValueError: for a header that is none.
    """
    found = json.loads(header.decode(), object_pairs_hook=_unique)
    return sum(
        math.prod(_part(name, value)[1])
        for name, value in found.items()
        if name != "__metadata__"
    )


def parse_safetensors(stream: Stream) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors by name, in the order of the header, and what it says beside them.

    Raises:
        ValueError: for a header that is none, or tensors that do not fill the file.
    """
    length = int.from_bytes(stream.take(8), "little")
    if length > min(LONGEST, stream.left):
        raise ValueError(f"its header would have {length:,} bytes")
    text = stream.take(length).decode()
    if not text.startswith("{"):
        raise ValueError("its header is no JSON object")
    header = json.loads(text, object_pairs_hook=_unique)
    said = header.pop("__metadata__", None) or {}
    if not isinstance(said, dict) or not all(isinstance(v, str) for v in said.values()):
        raise ValueError("its __metadata__ must be texts by name")
    parts = {name: _part(name, value) for name, value in header.items()}
    tensors, at = {}, 0
    for name in sorted(parts, key=lambda name: parts[name][2:]):
        dtype, shape, start, end = parts[name]
        if start != at:
            raise ValueError(f"{name} begins at byte {start:,} of the data, not at {at:,}")
        tensors[name] = np.frombuffer(stream.take(end - start), dtype).reshape(shape)
        at = end
    return {name: tensors[name] for name in parts}, said


def _part(name: str, value: Any) -> tuple[np.dtype, tuple[int, ...], int, int]:
    """Type, shape and place of one tensor."""
    whole = lambda x: isinstance(x, list) and all(type(n) is int and n >= 0 for n in x)
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name} needs a dtype, a shape and data_offsets")
    kind, shape, place = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(kind, str) or kind not in DTYPES:
        raise ValueError(f"{name} has numbers of the unknown type {kind!r}")
    if not whole(shape) or not whole(place) or len(place) != 2:
        raise ValueError(f"{name} has a shape or offsets that are no whole numbers")
    dtype = np.dtype(DTYPES[kind])
    if place[1] - place[0] != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} has bytes for another shape than {shape}")
    return dtype, tuple(shape), *place


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("its header has one name twice")
    return found
