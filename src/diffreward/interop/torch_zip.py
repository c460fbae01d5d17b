"""PyTorch checkpoints without PyTorch, and without running what they contain.

A ``.pt`` file is a zip with a pickle of the structure and one file per storage. A pickle
is a program; this reader executes none of it but the few steps that build tensors and
plain containers, and refuses the file at the first other name.
"""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

STORAGES: dict[str, Any] = {
    "BFloat16Storage": ml_dtypes.bfloat16,
    "BoolStorage": np.bool_,
    "ByteStorage": np.uint8,
    "CharStorage": np.int8,
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "IntStorage": np.int32,
    "LongStorage": np.int64,
    "ShortStorage": np.int16,
}


class _Refused(ValueError):
    """Says all there is to say; whatever else is raised while reading is damage."""


class _StorageType(NamedTuple):
    """Stands in for ``torch.FloatStorage`` and its kin."""

    dtype: Any


def read_torch(path: str | Path) -> Any:
    """Reads the containers, numbers and tensors of a PyTorch zip checkpoint.

    Args:
        path: file written by ``torch.save`` (the zip format, since PyTorch 1.6).

    Returns:
        What was saved, with NumPy arrays for tensors.

    Raises:
        ValueError: if the file is no such zip, is damaged, or holds anything but
            tensors in plain containers.
    """
    path = Path(path)
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is no PyTorch zip checkpoint (truncated, of another kind, or saved "
            "before PyTorch 1.6: load and save it again there)"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(path, archive)
    except _Refused as error:
        raise ValueError(str(error)) from None
    except Exception as error:  # noqa: BLE001 - a damaged zip or pickle fails in any way
        what = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is damaged: {what}") from error


def _read(path: Path, archive: zipfile.ZipFile) -> Any:
    names = archive.namelist()
    if len(set(names)) != len(names):
        raise EOFError("it has two entries of one name")
    pickles = [n for n in names if n.endswith("/data.pkl") or n == "data.pkl"]
    if len(pickles) != 1:
        raise _Refused(f"{path} has {len(pickles)} entries data.pkl instead of one")
    root = pickles[0].removesuffix("data.pkl")
    order = root + "byteorder"
    if order in names and archive.read(order).strip() != b"little":
        raise _Refused(f"{path} was saved on a big-endian machine; save it again")
    with archive.open(pickles[0]) as file:
        return _Unpickler(file, path, archive, root).load()


class _Unpickler(pickle.Unpickler):
    """Knows tensors and plain containers, nothing else."""

    def __init__(self, file: Any, path: Path, archive: zipfile.ZipFile, root: str):
        super().__init__(file)
        self.path, self.archive, self.root = path, archive, root
        self.storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
            ("torch", "Size"): tuple,
        }
        if module == "torch" and name in STORAGES:
            return _StorageType(STORAGES[name])
        if (module, name) not in known:
            raise _Refused(
                f"{self.path} wants to run {module}.{name}; only tensors in plain "
                "containers are read: save a state dict"
            )
        return known[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, storage, key, _, count = pid
        if kind != "storage" or not isinstance(storage, _StorageType):
            raise _Refused(f"{self.path} holds a {kind!r} of unknown type")
        if key not in self.storages:
            name = f"{self.root}data/{key}"
            size = np.dtype(storage.dtype).itemsize * int(count)
            if name not in self.archive.namelist():
                raise EOFError(f"{name} is missing")
            info = self.archive.getinfo(name)
            if info.file_size != size:
                raise EOFError(f"{name} has {info.file_size} bytes instead of {size}")
            raw = self.archive.read(info)
            self.storages[key] = np.frombuffer(raw, storage.dtype)
        return self.storages[key]


def _tensor(
    storage: np.ndarray, offset: int, size: tuple, stride: tuple, *_: Any
) -> np.ndarray:
    """The view of a storage that a tensor is, copied into an array of its own."""
    if not isinstance(storage, np.ndarray) or len(size) != len(stride):
        raise ValueError("a tensor without storage")
    numbers = (offset, *size, *stride)
    if not all(isinstance(n, int) and n >= 0 for n in numbers):
        raise ValueError(f"a tensor with offset, sizes and strides {numbers}")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if 0 not in size and last >= len(storage):
        raise ValueError("a tensor that reaches beyond its storage")
    if 0 in size:
        return np.zeros(size, storage.dtype)
    steps = [s * storage.itemsize for s in stride]
    view = np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False)
    return np.array(view)
