"""Checkpoints as diffusion models."""

from pathlib import Path
from typing import Any, NamedTuple

from diffreward import files, interop
from diffreward.cli.python_model import PythonModel, open_python, reference
from diffreward.data import Normaliser
from diffreward.diffusion import Context, ContextLayout, DiffusionModel, discrete


class Checkpoint(NamedTuple):
    """A model from a file or folder, and where it came from."""

    path: Path
    loaded: Any
    prediction: str | None
    """None as long as nobody has said it."""
    sha256: str
    """Of the files that were read, as they were read; see :func:`files.digest`."""
    read: dict[str, str]
    """Digests of these files by their names in the folder."""
    copy: str | None = None
    """The copy that was asked for."""
    confidence: float | None = None
    """Of a detected kind."""
    context: ContextLayout | None = None
    """What a model with a condition is told."""

    def model(self, normaliser: Normaliser | None) -> Any:
        """The model in the given coordinates, unless its files say its own.

        With a context, a function from one to it. Its embedding of time is smooth.
        """
        process = discrete(self.loaded.schedule, integer=False)
        kind: Any = self.prediction
        apply, own = self.loaded.apply, self.loaded.normaliser
        placed = normaliser if own is None else own
        if self.context is None:
            return DiffusionModel(apply, process, kind, placed)
        only = self.context.parts[0].name
        names = [part.name or only for part in self.loaded.told]

        def told(context: Context) -> DiffusionModel:
            values = [context[name] for name in names]
            asked = lambda x, t: apply(x, t, *values)
            return DiffusionModel(asked, process, kind, placed)

        return told

    def declared(self, context: ContextLayout | None) -> DiffusionModel:
        """The model, or the one of an example context."""
        made = self.model(None)
        return made if context is None else made(context.example())

    def provenance(self) -> dict[str, Any]:
        """Path and digest, the copy, and how the kind of prediction is known."""
        known: dict[str, Any] = {"path": str(self.path), "sha256": self.sha256}
        if self.copy is not None:
            known["copy"] = self.copy
        if len(self.read) > 1:
            known["files"] = ", ".join(sorted(self.read))
        known["prediction"] = self.prediction
        if self.confidence is not None:
            known["detected_with_confidence"] = self.confidence
        return known


def open_model(
    path: Path,
    shape: tuple[int, ...],
    copy: str | None = None,
    context: ContextLayout | None = None,
) -> Checkpoint | PythonModel:
    """A checkpoint, or a model given as ``file.py:function``.

    Args:
        path: of a file or folder, or file and function.
        shape: of the samples.
        copy: see :func:`open_checkpoint`.
        context: of the samples.

    Raises:
        ValueError: if it cannot be read or run, or is not for such samples.
        FileNotFoundError: if there is none.
    """
    found = reference(path)
    if found is None:
        opened = open_checkpoint(path, shape, copy)
        _check_context(opened, context)
        return opened._replace(context=context)
    if copy is not None:
        raise ValueError(f"{path} is Python and has no copies; take {copy!r} in its code")
    model = open_python(*found)
    model.declared(context)
    return model


def _check_context(opened: Checkpoint, context: ContextLayout | None) -> None:
    """Refuses a context that a checkpoint is not told, and none where it is told one.

    Raises:
        ValueError: saying what it is told.
    """
    path, told = opened.path, opened.loaded.told
    if not told and context is not None:
        raise ValueError(
            f"{path} is told nothing beside its sample; leave --context away, or give the "
            "model as Python, file.py:function"
        )
    parts = () if context is None else context.parts
    fits = len(parts) == len(told) and all(
        any(part.shape == own.shape and own.name in (None, part.name) for part in parts)
        for own in told
    )
    if fits:
        return
    kind = ", one-hot" if opened.loaded.one_hot else ""
    wanted = " and ".join(
        f"{own.name or 'one array'} (samples, {', '.join(map(str, own.shape))}){kind}"
        for own in told
    )
    found = "none" if context is None else context.words
    raise ValueError(f"{path} is told what --context must name: {wanted}; given: {found}")


def coordinates(
    base: Checkpoint | PythonModel,
    normaliser: Normaliser | None,
    context: ContextLayout | None,
    expert: Checkpoint | PythonModel | None = None,
) -> Normaliser | None:
    """Those that samples of a pair live in: given, or declared by the base.

    Raises:
        ValueError: if both are there, or the expert alone says where it lives.
    """
    own, theirs = (
        None if model is None else model.declared(context).normaliser
        for model in (base, expert)
    )

    def where(model: Any) -> str:
        if isinstance(model, PythonModel):
            return f"{model.path}:{model.function}"
        return str(model.path)

    if own is not None and normaliser is not None:
        raise ValueError(f"{where(base)} says its own normaliser; leave --normaliser away")
    if own is None and normaliser is None and theirs is not None:
        raise ValueError(
            f"{where(expert)} says its own normaliser and the base says none, so where the "
            "base lives is unknown; let it say its own, or give --normaliser"
        )
    return normaliser if own is None else own


def open_checkpoint(
    path: Path, shape: tuple[int, ...], copy: str | None = None
) -> Checkpoint:
    """Reads a checkpoint for samples of the given shape.

    Args:
        path: of a file or folder.
        shape: of the samples, (horizon, dim) or (height, width, channels).
        copy: of a checkpoint that holds several, see :func:`interop.load_model`.

    Raises:
        ValueError: if it cannot be read, or is not for such samples.
        FileNotFoundError: if there is none.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if len(shape) not in (2, 3):
        raise ValueError(
            f"{path}: checkpoints read here are models of (horizon, dim) samples or of "
            f"(height, width, channels) images, the data are shaped {shape}; give such a "
            "model as Python, file.py:function"
        )
    with files.recorded() as ledger:
        loaded = interop.load_model(path, copy)
    loaded.check_shape(shape, str(path))
    root = path if path.is_dir() else path.parent
    read = {file.relative_to(root).as_posix(): sha for file, sha in ledger.items()}
    sha256 = files.digest(ledger, path)
    return Checkpoint(path, loaded, loaded.prediction, sha256, read, copy)
