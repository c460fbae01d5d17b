"""HDF5 files, read without following them to other files."""

import contextlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from diffreward.files import File, FileValueError, reading, write_bytes

_CHUNK_ROWS = 16_384
_NUMBERS = "biuf"


class Hdf5:
    """An open file; arrays are taken out of it by name."""

    def __init__(self, file: File, root: h5py.File):
        """Keeps both; see :func:`reading_hdf5`."""
        self.path, self.file, self.root = file.path, file, root
        self._listed: dict[int, str] = {}

    def names(self, group: str = "/") -> list[str]:
        """What a group holds."""
        found = self._item(group, h5py.Group)
        # Groups that lie in one another would be walked for ever.
        first = self._listed.setdefault(h5py.h5o.get_info(found.id).addr, group)
        if first != group:
            raise FileValueError(f"{self.path}: {group} and {first} are one group; copy it")
        return list(map(str, found))

    def has(self, name: str) -> bool:
        """Whether a group or an array has this name."""
        return name in self.root

    def is_group(self, name: str) -> bool:
        """Whether a group has this name."""
        return isinstance(self._item(name), h5py.Group)

    def attributes(self, group: str = "/") -> dict[str, Any]:
        """Notes on a group."""
        return dict(self._item(group, h5py.Group).attrs)

    def array(self, name: str) -> np.ndarray:
        """An array of numbers, whole.

        Raises:
            FileValueError: if it is none, lies in another file, or asks for more memory
                than a file of this size may.
        """
        item = self._item(name, h5py.Dataset)
        if item.is_virtual or item.external:
            raise FileValueError(
                f"{self.path}: {name} lies in other files; copy it into this one"
            )
        if item.shape is None or item.dtype.kind not in _NUMBERS:
            raise FileValueError(
                f"{self.path}: {name}: dtype {item.dtype}, expected numbers"
            )
        self.file.spend(item.nbytes, name)
        return np.asarray(item[()])

    def _item(self, name: str, kind: Any = None) -> Any:
        item: Any = self.root
        for part in filter(None, name.split("/")):
            if not isinstance(item, h5py.Group) or part not in item:
                raise FileValueError(f"{self.path}: {name} is missing")
            if not isinstance(item.get(part, getlink=True), h5py.HardLink):
                raise FileValueError(
                    f"{self.path}: {name} is a link; copy what it leads to"
                )
            item = item[part]
        if kind is not None and not isinstance(item, kind):
            wanted = "an array" if kind is h5py.Dataset else "a group"
            found = {h5py.Group: "a group", h5py.Dataset: "an array"}.get(
                type(item), "a type"
            )
            raise FileValueError(f"{self.path}: {name}: {found}, expected {wanted}")
        return item


@contextlib.contextmanager
def reading_hdf5(path: str | Path) -> Iterator[Hdf5]:
    """Opens a file from its bytes, read once.

    Raises:
        FileNotFoundError: if there is none.
        FileValueError: naming it and what is wrong with it, also for what the block raises.
    """
    with reading(path) as file:
        try:
            with h5py.File(file.stream(), "r") as root:
                yield Hdf5(file, root)
        except (OSError, RuntimeError, KeyError, TypeError) as error:
            raise FileValueError(
                f"{path}: not a readable HDF5 file (truncated or another format): {error}"
            ) from error


def write_hdf5(
    path: str | Path,
    arrays: Mapping[str, np.ndarray],
    attrs: Mapping[str, str | int | float],
) -> None:
    """Writes flat arrays so that equal content gives equal bytes, whole or not at all.

    Floats are stored as float32, keys may contain ``/``.
    """
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for key in sorted(arrays):
            array = np.asarray(arrays[key])
            if array.dtype.kind == "f":
                array = array.astype(np.float32)
            file.create_dataset(
                key,
                data=array,
                chunks=(min(_CHUNK_ROWS, max(len(array), 1)), *array.shape[1:]),
                compression="gzip",
                compression_opts=1,
                shuffle=True,
                # A modification time would make every file differ.
                track_times=False,
            )
        for name in sorted(attrs):
            file.attrs[name] = attrs[name]
    write_bytes(path, stream.getvalue())
