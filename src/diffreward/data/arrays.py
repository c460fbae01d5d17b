"""NumPy's files, read without trusting what they say of themselves."""

import io
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from diffreward.files import File, FileValueError, reading, write_bytes

UNNAMED = "arr_0"
"""How ``np.savez`` calls an array without a name; the one of a ``.npy`` is called so."""
_NPY, _ZIP = b"\x93NUMPY", b"PK\x03\x04"
_HEADERS: dict[Any, Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_NUMBERS = "biufc"


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Arrays of numbers by name, of a ``.npy`` or ``.npz`` file.

    The first bytes tell which of the two it is, not its name.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming it, if it is damaged, holds anything but numbers, or would
            unpack to more memory than a file of its size may ask for.
    """
    with reading(path) as file:
        if file.data.startswith(_NPY):
            return {UNNAMED: _array(file, file.data, "its array")}
        if not file.data.startswith(_ZIP):
            raise FileValueError(
                f"{path} is no file of NumPy's (.npy or .npz), or is damaged"
            )
        with zipfile.ZipFile(file.stream()) as archive:
            entries = archive.infolist()
            names = [entry.filename.removesuffix(".npy") for entry in entries]
            if len(set(names)) != len(names):
                raise FileValueError(f"{path} has two arrays of one name")
            arrays = {}
            for name, entry in zip(names, entries, strict=True):
                file.spend(entry.file_size, f"its array {name!r}")
                arrays[name] = _array(file, archive.read(entry), f"its array {name!r}")
        return arrays


def write_arrays(path: str | Path, arrays: dict[str, Any]) -> None:
    """Writes an ``.npz`` of named arrays, whole or not at all."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    write_bytes(path, stream.getvalue())


def write_array(path: str | Path, array: Any) -> None:
    """Writes a ``.npy``, whole or not at all."""
    stream = io.BytesIO()
    np.save(stream, array)
    write_bytes(path, stream.getvalue())


def _array(file: File, data: bytes, what: str) -> np.ndarray:
    """The array of a ``.npy``; its size must be what the header says."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise FileValueError(f"{file.path}: {what} has format {version}, which is not read")
    shape, columns_first, dtype = _HEADERS[version](stream)
    if dtype.kind not in _NUMBERS:
        raise FileValueError(
            f"{file.path}: {what} is of type {dtype}; only numbers are read"
        )
    body = memoryview(data)[stream.tell() :]
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(body):
        raise FileValueError(
            f"{file.path}: {what} should be {dtype} shaped {shape}, and has {len(body):,} "
            "bytes; the file is damaged"
        )
    values = np.frombuffer(body, dtype)
    return values.reshape(shape, order="F" if columns_first else "C").copy()
