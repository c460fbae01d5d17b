"""Arrays in many files with a manifest: written one by one, read in pieces.

A folder holds ``manifest.json`` (what is in a shard and how many there shall be) and
``shard-00000.safetensors``, ... A shard exists whole or not at all, so a writer that was
stopped goes on with the missing ones.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

FORMAT = "diffreward-shards-1"
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
    folder: Path, count: int, make: Callable[[int], dict[str, np.ndarray]]
) -> Shards:
    """Writes the shards that are missing.

    Args:
        folder: of the shards; made if needed.
        count: shards in all.
        make: arrays of shard i, the same whenever it is called.
    """
    shards = Shards(folder, count)
    folder.mkdir(parents=True, exist_ok=True)
    for index in shards.missing:
        arrays = make(index)
        partial = shards.path(index).with_suffix(".partial")
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, partial)
        os.replace(partial, shards.path(index))
    about = {k: [str(v.dtype), *v.shape] for k, v in read_shard(shards, 0).items()}
    manifest = {"format": FORMAT, "count": count, "arrays_of_shard_0": about}
    partial = folder / "manifest.partial"
    partial.write_text(json.dumps(manifest, indent=2) + "\n")
    os.replace(partial, folder / "manifest.json")
    return shards


def open_shards(folder: Path) -> Shards:
    """A complete folder of shards.

    Raises:
        ValueError: if it is not one, or not complete.
    """
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
        count = int(manifest["count"]) if manifest["format"] == FORMAT else -1
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist; {AGAIN}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and {AGAIN}") from error
    if count < 1:
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
        return load_file(path)
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist; {AGAIN}") from error
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and {AGAIN}") from error
