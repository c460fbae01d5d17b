"""PyTorch checkpoints without PyTorch, and without running what they contain.

A ``.pt`` file is a zip with a pickle of the structure and one file per storage. The pickle
is built by :mod:`diffreward.interop.unpickle`, which knows plain data and the names below.
"""

import math
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from diffreward import files
from diffreward.interop.unpickle import (
    Blank,
    Builder,
    Known,
    Pending,
    Refused,
    ordered,
    unpickle,
)

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
DTYPES = (
    *("float16", "float32", "float64", "half", "float", "double", "bfloat16"),
    *("bool", "uint8", "int8", "int16", "int32", "int64"),
)
"""Names of ``torch`` that are read as their own names."""
CONFIGS = (
    *("dictconfig.DictConfig", "listconfig.ListConfig"),
    *("base.ContainerMetadata", "base.Metadata"),
    *(f"nodes.{kind}Node" for kind in ("Any", "Integer", "Float", "String", "Boolean")),
)
"""Classes of OmegaConf."""
TYPES = ("dict", "list", "int", "float", "str", "bool")
"""Types that a pickle names as such; what is made of them are plain data."""
COPIES = 4
"""Memory that a number costs on its way into a model, in numbers: tensors that share a
storage, or repeat its numbers, are bounded by it."""


def read_torch(path: str | Path) -> Any:
    """Reads the containers, numbers and tensors of a PyTorch zip checkpoint.

    Args:
        path: file written by ``torch.save`` (the zip format, since PyTorch 1.6).

    Returns:
        What was saved, with read-only NumPy arrays for tensors, and lists for sets.

    Raises:
        ValueError: if the file is no such zip, is damaged, asks for more memory than its
            size allows, or holds anything but tensors and numbers in plain containers.
    """
    with files.reading(path) as file:
        return parse_torch(file)


def parse_torch(file: files.File) -> Any:
    """As :func:`read_torch`, of a file that is read."""
    path = file.path
    try:
        opened = zipfile.ZipFile(file.stream())
    except zipfile.BadZipFile:
        raise files.FileValueError(
            f"{path} is no PyTorch zip checkpoint (truncated, of another kind, or saved "
            "before PyTorch 1.6: load and save it again there)"
        ) from None
    with opened as archive:
        entries = {info.filename: info for info in archive.infolist()}
        if len(entries) != len(archive.infolist()):
            raise ValueError("it has two entries of one name")
        if any(e.compress_type != zipfile.ZIP_STORED for e in entries.values()):
            raise files.FileValueError(
                f"{path} has compressed entries, which PyTorch never writes; load and save "
                "it again there"
            )
        if sum(e.file_size for e in entries.values()) > len(file.data):
            raise ValueError("its entries overlap")
        found = [n for n in entries if n.endswith("/data.pkl") or n == "data.pkl"]
        if len(found) != 1:
            raise files.FileValueError(
                f"{path} has {len(found)} entries data.pkl instead of one; is it a PyTorch "
                "checkpoint?"
            )
        root = found[0].removesuffix("data.pkl")
        if f"{root}constants.pkl" in entries:
            raise files.FileValueError(
                f"{path} is a compiled program (TorchScript); load it in PyTorch and save "
                "its state_dict()"
            )
        order = root + "byteorder"
        if order in entries and archive.read(order).strip() != b"little":
            raise files.FileValueError(
                f"{path} was saved on a big-endian machine; save it again"
            )
        storages = _Storages(file, archive, root)
        names = {**BUILDERS, "torch._utils._rebuild_tensor_v2": _tensor_builder(file)}
        known = Known(names, storages.get, build, file.spend)
        try:
            return unpickle(archive.read(found[0]), known)
        except Refused as error:
            raise files.FileValueError(
                f"{path} {error}; only tensors and numbers in plain containers are read: "
                "save a state dict"
            ) from None


class _Storage(NamedTuple):
    numbers: np.ndarray


class _Storages:
    """Each is read once, and has one type."""

    def __init__(self, file: files.File, archive: zipfile.ZipFile, root: str):
        self.file, self.archive, self.root = file, archive, root
        self.known: dict[str, _Storage] = {}

    def get(self, identifier: Any) -> _Storage:
        if not isinstance(identifier, tuple) or len(identifier) != 5:
            raise Refused("refers to what is no storage")
        kind, storage, key, _, count = identifier
        name = storage.name if isinstance(storage, Builder) else ""
        if kind != "storage" or name not in STORAGES or not isinstance(key, str):
            raise Refused("refers to a storage of unknown type")
        dtype = np.dtype(STORAGES[name])
        if key in self.known:
            numbers = self.known[key].numbers
            if (numbers.dtype, len(numbers)) != (dtype, count):
                raise ValueError(f"its storage {key!r} has two types or sizes")
            return self.known[key]
        try:
            entry = self.archive.getinfo(f"{self.root}data/{key}")
        except KeyError:
            raise ValueError(f"{self.root}data/{key} is missing") from None
        wanted = dtype.itemsize * count if isinstance(count, int) else "its own"
        if entry.file_size != wanted:
            raise ValueError(
                f"{entry.filename} has {entry.file_size} bytes instead of {wanted}"
            )
        self.file.spend(entry.file_size, "its numbers")
        self.known[key] = _Storage(np.frombuffer(self.archive.read(entry), dtype))
        return self.known[key]


def _tensor_builder(file: files.File) -> Builder:
    def tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> np.ndarray:
        """The view of a storage that a tensor is, or a copy in its own order."""
        if not isinstance(storage, _Storage):
            raise ValueError("a tensor without storage")
        numbers = storage.numbers
        plain = isinstance(size, tuple) and isinstance(stride, tuple)
        if not plain or len(size) != len(stride) or len(size) > 32:
            raise ValueError("a tensor whose sizes and strides differ in number")
        places = (offset, *size, *stride)
        if not all(type(n) is int and 0 <= n < 2**48 for n in places):
            raise ValueError("a tensor whose offset, sizes and strides are none")
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if 0 in size:
            return np.zeros(size, numbers.dtype)
        if last >= len(numbers):
            raise ValueError("a tensor that reaches beyond its storage")
        width = max(numbers.itemsize, 4)
        file.spend(COPIES * width * math.prod(size), "its tensors")
        steps = [s * numbers.itemsize for s in stride]
        view = np.lib.stride_tricks.as_strided(
            numbers[offset:], size, steps, writeable=False
        )
        return np.asarray(view, order="C")

    return Builder("torch._utils._rebuild_tensor_v2", tensor)


def _dtype(text: Any, *_: Any) -> np.dtype:
    if not isinstance(text, str) or not re.fullmatch(r"[<|=]?(b1|[iu][1248]|f[248])", text):
        raise Refused("holds NumPy data of other than plain numbers")
    return np.dtype(text)


def _scalar(dtype: Any, data: Any) -> np.generic:
    if not isinstance(dtype, np.dtype) or not isinstance(data, bytes):
        raise ValueError("a NumPy number without type or bytes")
    if len(data) != dtype.itemsize:
        raise ValueError(f"a NumPy number of {len(data)} bytes, not {dtype.itemsize}")
    return np.frombuffer(data, dtype)[0]


def _array(dtype: Any, shape: Any, fortran: Any, data: Any) -> np.ndarray:
    sizes = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    if not isinstance(dtype, np.dtype) or not sizes or not isinstance(data, bytes):
        raise ValueError("a NumPy array without type, shape or bytes")
    if len(data) != dtype.itemsize * math.prod(shape):
        raise ValueError(
            f"a NumPy array of {len(data)} bytes, which its shape does not ask"
        )
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def build(target: Any, state: Any) -> Any:
    """What a state changes: arrays get their numbers, everything else nothing."""
    if isinstance(target, OrderedDict) and isinstance(state, dict):
        return target  # the versions of PyTorch's modules
    if isinstance(target, np.dtype) and isinstance(state, tuple) and len(state) > 4:
        if state[1] not in ("<", "|", "=") or state[2:5] != (None, None, None):
            raise Refused("holds NumPy data of other than plain numbers")
        return target
    if isinstance(target, Pending) and isinstance(state, tuple) and len(state) == 5:
        _, shape, dtype, fortran, data = state
        return _array(dtype, shape, fortran, data)
    raise Refused("changes an object that is not its own")


def _encoded(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Refused("wants to encode text")
    return text.encode("latin-1")


def _device(kind: Any, index: Any = None) -> str:
    if not isinstance(kind, str) or not isinstance(index, int | None):
        raise ValueError("a device without a name")
    return kind if index is None else f"{kind}:{index}"


def _listed(items: Any = ()) -> list[Any]:
    if not isinstance(items, list | tuple):
        raise ValueError("a set of other things than a list")
    return list(items)


def _type(name: Any) -> str:
    if not isinstance(name, str):
        raise Refused("names a type by what is no text")
    return name


def _nothing(*_: Any) -> Any:
    raise Refused("calls a class")


BUILDERS: Mapping[str, Any] = {
    "collections.OrderedDict": Builder("OrderedDict", ordered),
    "torch._utils._rebuild_parameter": Builder("a parameter", lambda data, *_: data),
    "torch.Size": Builder("torch.Size", lambda items=(): tuple(_listed(items))),
    "torch.device": Builder("torch.device", _device),
    "numpy.dtype": Builder("numpy.dtype", _dtype),
    "numpy.ndarray": Builder("numpy.ndarray", _nothing),
    "_codecs.encode": Builder("_codecs.encode", _encoded),
    **{f"torch.{name}": Builder(name, _nothing) for name in STORAGES},
    **{f"torch.{name}": f"torch.{name}" for name in DTYPES},
    **{f"{m}.set": Builder("set", _listed) for m in ("builtins", "__builtin__")},
    **{
        f"numpy.{core}.multiarray.scalar": Builder("numpy.scalar", _scalar)
        for core in ("core", "_core")
    },
    **{
        f"numpy.{core}.multiarray._reconstruct": Builder(
            "numpy._reconstruct", lambda *_: Pending()
        )
        for core in ("core", "_core")
    },
    # Settings beside the weights: see omegaconf.py of this package.
    **{f"omegaconf.{name}": Blank(name) for name in CONFIGS},
    **{f"{m}.{t}": t for m in ("builtins", "__builtin__") for t in TYPES},
    "typing.Any": "Any",
    "dill._dill._load_type": Builder("a type", _type),
    "collections.defaultdict": Builder("defaultdict", lambda *_: {}),
}
"""Names that checkpoints use, and the harmless function each stands for."""
