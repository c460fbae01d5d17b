"""HDF5 files in D4RL's layout: flat arrays over all steps (Fu et al., 2020)."""

import os
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from diffreward.data.episodes import Episodes

_REQUIRED = ("observations", "actions")
_OPTIONAL = ("rewards", "terminals", "timeouts")
_CHUNK_ROWS = 16_384


def read_hdf5(path: str | os.PathLike[str]) -> Episodes:
    """Reads and checks any file in D4RL's layout; extra keys are ignored.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file and what is wrong with it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with h5py.File(path, "r") as file:
            missing = [key for key in _REQUIRED if key not in file]
            if missing:
                raise ValueError(
                    f"{path}: missing {', '.join(missing)}; the file has: "
                    f"{', '.join(sorted(file)) or 'nothing'}"
                )
            keys = [key for key in (*_REQUIRED, *_OPTIONAL) if key in file]
            arrays = {key: _read_dataset(path, file, key) for key in keys}
    except (OSError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: not a readable HDF5 file (truncated or another format): {error}"
        ) from error
    return Episodes.from_arrays(**arrays, source=str(path))


def write_hdf5(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    attrs: Mapping[str, str | int | float],
) -> None:
    """Writes flat arrays so that equal content gives equal bytes.

    Floats are stored as float32, keys may contain ``/``. The file appears under its
    name only when complete: it is written beside it and renamed.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with h5py.File(partial, "w") as file:
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
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _read_dataset(path: Path, file: h5py.File, key: str) -> np.ndarray:
    item = file[key]
    if not isinstance(item, h5py.Dataset):
        raise ValueError(f"{path}: {key}: a group, expected an array")
    return np.asarray(item[()])
