"""Named tensors from any checkpoint file or folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from diffreward.interop.torch_zip import read_torch

INDEXES = ("diffusion_pytorch_model", "model", "pytorch_model")
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Tensors by name.

    Args:
        path: a ``.safetensors`` or PyTorch zip file, told apart by their first bytes; or
            a folder with one such file, or with several and their index.

    Raises:
        ValueError: if there is no such file, or it is damaged or holds anything else.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    found = read_checkpoint(path)
    if not isinstance(found, dict) or not all(
        isinstance(v, np.ndarray) for v in found.values()
    ):
        raise ValueError(f"{path} holds more than named tensors; give its state dict")
    return dict(found)


def read_checkpoint(path: str | Path) -> Any:
    """Whatever containers of tensors a file holds.

    Raises:
        ValueError: see :func:`read_tensors`.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is no file")
    with path.open("rb") as file:
        head = file.read(9)
    if head.startswith(b"PK\x03\x04"):
        return read_torch(path)
    if path.suffix != ".safetensors" and head[8:9] != b"{":
        # Says what is wrong: truncated, too old, or another kind of file.
        return read_torch(path)
    try:
        return load_file(path)
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is no valid safetensors file: {error}") from error


def _read_folder(folder: Path) -> dict[str, np.ndarray]:
    for stem in INDEXES:
        for suffix in (".safetensors", ".bin"):
            index = folder / f"{stem}{suffix}.index.json"
            if index.exists():
                return _read_shards(folder, index)
    files = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES)
    # Folders often hold the same weights twice; safetensors needs no trust.
    safe = [p for p in files if p.suffix == ".safetensors"]
    chosen = safe or files
    if len(chosen) != 1:
        names = ", ".join(p.name for p in chosen) or "none"
        raise ValueError(f"{folder} should hold one weights file, found: {names}")
    return read_tensors(chosen[0])


def _read_shards(folder: Path, index: Path) -> dict[str, np.ndarray]:
    try:
        weights = json.loads(index.read_text())["weight_map"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{index} is no index of weights: {error}") from error
    tensors: dict[str, np.ndarray] = {}
    for name in sorted(set(weights.values())):
        tensors |= read_tensors(folder / Path(name).name)
    if missing := sorted(weights.keys() - tensors.keys()):
        raise ValueError(f"{folder}: {index.name} promises {missing[0]}, no file has it")
    return tensors
