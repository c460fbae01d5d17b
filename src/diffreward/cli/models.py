"""Checkpoints as diffusion models."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from diffreward import interop
from diffreward.data import Normaliser
from diffreward.diffusion import DiffusionModel, discrete


class Checkpoint(NamedTuple):
    """A model from a file, and where it came from."""

    path: Path
    loaded: Any
    prediction: str | None
    """None as long as nobody has said it."""
    confidence: float | None = None
    """Of a detected kind."""

    def model(self, normaliser: Normaliser | None) -> DiffusionModel:
        """The model in the given coordinates; its embedding of time is smooth."""
        process = discrete(self.loaded.schedule, integer=False)
        kind: Any = self.prediction
        return DiffusionModel(self.loaded.apply, process, kind, normaliser)

    def provenance(self) -> dict[str, Any]:
        """Path and digest, and how the kind of prediction is known."""
        known: dict[str, Any] = {"path": str(self.path), "sha256": digest(self.path)}
        known["prediction"] = self.prediction
        if self.confidence is not None:
            known["detected_with_confidence"] = self.confidence
        return known


def open_checkpoint(path: Path, shape: tuple[int, ...]) -> Checkpoint:
    """Reads a checkpoint for samples of the given shape.

    Raises:
        ValueError: if it cannot be read, or is not for such samples.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    if len(shape) != 2:
        raise ValueError(
            f"{path}: checkpoints read here are models of (horizon, dim) samples, the "
            f"data are shaped {shape}"
        )
    loaded = interop.load_model(path)
    if loaded.dim != shape[1]:
        raise ValueError(
            f"{path} is a model of {loaded.dim} numbers per step, the samples have "
            f"{shape[1]}"
        )
    return Checkpoint(path, loaded, loaded.prediction)


def digest(path: Path) -> str:
    """Digest of a file, or of the names and contents of a folder's files."""
    sha = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        sha.update(file.name.encode())
        sha.update(hashlib.sha256(file.read_bytes()).digest())
    return sha.hexdigest()
