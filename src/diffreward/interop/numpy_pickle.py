"""NumPy arrays from a pickle, compressed or not, without running what it contains."""

import zlib
from pathlib import Path
from typing import Any

from diffreward import files
from diffreward.interop.torch_zip import BUILDERS, build
from diffreward.interop.unpickle import LONGEST, Known, Refused, unpickle

GZIP = b"\x1f\x8b"
NAMES = {name: made for name, made in BUILDERS.items() if name.startswith("numpy.")}
"""What such a pickle may use beside plain data."""


def read_pickle(path: str | Path) -> Any:
    """Arrays and plain data that a pickle, or one in gzip, describes.

    Raises:
        ValueError: naming the file, if it is damaged, asks for too much memory, or holds
            anything else.
    """
    with files.reading(path) as file:
        data = file.data
        if data.startswith(GZIP):
            data = zlib.decompressobj(wbits=31).decompress(data, LONGEST + 1)
        try:
            return unpickle(data, Known(NAMES, _stored, build, file.spend))
        except Refused as error:
            raise files.FileValueError(
                f"{path} {error}; only NumPy arrays of numbers and plain data are read"
            ) from None


def _stored(identifier: Any) -> Any:
    raise Refused(f"refers to {type(identifier).__name__} outside of the file")
