"""Arrays in many files with a manifest: written one by one, read in pieces.

A folder holds ``manifest.json`` (what is in a shard and how many there shall be) and
``shard-00000.safetensors``, ... A shard exists whole or not at all, so a writer that was
stopped goes on with the missing ones.
"""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from safetensors.numpy import load, save

from diffreward import processes
from diffreward.files import (
    FileValueError,
    own_part,
    read_json,
    reading,
    write_bytes,
    write_text,
)

FORMAT = "diffreward-shards-1"
MOST = 100_000
"""Shards that a folder may have: their names have five digits."""
AGAIN = "run the command that writes the shards again"


class Shards(NamedTuple):
    """A folder of shards."""

    folder: Path
    count: int
    """Shards there are when it is complete."""

    def path(self, index: int) -> Path:
        """File of one shard."""
        return self.folder / f"shard-{index:05d}.safetensors"

    @property
    def missing(self) -> list[int]:
        """Shards not written yet."""
        return [i for i in range(self.count) if not self.path(i).exists()]


def write_shards(
    folder: Path,
    count: int,
    make: Callable[[int], dict[str, np.ndarray]],
    *,
    together: bool = False,
) -> Shards:
    """Writes the shards that are missing.

    Args:
        folder: of the shards; made if needed.
        count: shards in all.
        make: arrays of shard i, the same whenever it is called.
        together: whether all processes of the run are here; shard i is then made by
            process i modulo their number.
    """
    shards = Shards(folder, count)
    folder.mkdir(parents=True, exist_ok=True)
    own, of = (jax.process_index(), jax.process_count()) if together else (0, 1)
    with own_part() if together else contextlib.nullcontext():
        for index in (i for i in shards.missing if i % of == own):
            arrays = make(index)
            tensors = {k: np.ascontiguousarray(v) for k, v in arrays.items()}
            write_bytes(shards.path(index), save(tensors))
    if together:
        processes.wait(f"shards of {folder.name}")
    about = {k: [str(v.dtype), *v.shape] for k, v in read_shard(shards, 0).items()}
    manifest = {"format": FORMAT, "count": count, "arrays_of_shard_0": about}
    write_text(folder / "manifest.json", json.dumps(manifest, indent=2) + "\n")
    return shards


def open_shards(folder: Path) -> Shards:
    """A complete folder of shards.

    Raises:
        ValueError: if it is not one, or not complete.
    """
    path = folder / "manifest.json"
    try:
        manifest = read_json(path)
        count = int(manifest["count"]) if manifest["format"] == FORMAT else -1
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist; {AGAIN}") from error
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and {AGAIN}") from error
    if not 1 <= count <= MOST:
        raise ValueError(f"{path} is not a manifest of format {FORMAT}")
    shards = Shards(folder, count)
    if missing := shards.missing:
        raise ValueError(
            f"{folder} lacks {len(missing)} of {count} shards, first {missing[0]}; {AGAIN}"
        )
    return shards


def read_shard(shards: Shards, index: int) -> dict[str, np.ndarray]:
    """Arrays of one shard.

    Raises:
        ValueError: if the file is missing or damaged.
    """
    path = shards.path(index)
    try:
        with reading(path) as file:
            return load(file.data)
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist; {AGAIN}") from error
    except FileValueError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and {AGAIN}") from error
