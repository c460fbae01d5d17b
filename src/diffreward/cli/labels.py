"""What a model predicts and how it is asked: told, written in it, or found in data."""

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffreward.cli.models import Checkpoint, open_model
from diffreward.cli.python_model import PythonModel
from diffreward.cli.samples import Samples
from diffreward.data import Normaliser, normalise
from diffreward.diffusion import (
    AS_DECLARED,
    ContextLayout,
    Convention,
    Detection,
    check_prediction,
    detect_convention,
    detect_prediction,
)
from diffreward.text import say
from diffreward.types import Mask

SURE = 0.95
"""Confidence from which what was detected is taken."""
FEW = 256
"""Samples that are looked at."""
NOISE = 0.05
"""What a model may explain less than mean and variance of so few samples."""
WIDEST = 10.0
"""Largest number of a picture or latent that is no mistake; bytes reach 255."""
Opened = Checkpoint | PythonModel


def open_for(
    path: Path, copy: str | None, samples: Samples, normaliser: Normaliser | None
) -> Opened:
    """A model for these samples, which it sees in the given coordinates.

    Raises:
        ValueError: see :func:`open_model`; or if a checkpoint would be told labels that are
            none, or shown bytes.
    """
    opened = open_model(path, samples.shape, copy, samples.layout)
    if isinstance(opened, Checkpoint) and len(samples.shape) == 3:
        _check_range(path, samples, normaliser)
    if isinstance(opened, Checkpoint) and opened.loaded.one_hot and opened.context:
        name = opened.context.parts[0].name
        rows = samples.context[name]
        odd = ~(np.isin(rows, (0, 1)).all(1) & (rows.sum(1) == 1))
        if odd.any():
            raise ValueError(
                f"{samples.source}: {name} of sample {int(np.argmax(odd))} is no one-hot "
                "label, a single 1 among zeros"
            )
    return opened


def _check_range(path: Path, samples: Samples, normaliser: Normaliser | None) -> None:
    """Pictures are not of the range that pipelines train on: refused, or said."""
    ends = [
        samples.x.min(axis=(0, 1, 2)),
        samples.x.max(axis=(0, 1, 2)),
    ]
    if normaliser is not None:
        ends = [np.asarray(normalise(normaliser, channels)) for channels in ends]
    low, high = float(np.min(ends)), float(np.max(ends))
    if max(-low, high) > WIDEST:
        raise ValueError(
            f"{samples.source}: samples lie in [{low:g}, {high:g}]; {path} is a model of "
            "pictures in [-1, 1], so give x / 127.5 - 1"
        )
    if low >= 0:
        say(
            f"note: samples of {samples.source} lie in [{low:g}, {high:g}]; models of "
            f"pictures are trained in [-1, 1] (2 x - 1), which diffreward detect can tell",
            sys.stderr,
        )


def open_labelled(
    path: Path,
    copy: str | None,
    told: str | None,
    samples: Samples,
    normaliser: Normaliser | None,
    seed: int,
) -> tuple[Opened, dict[str, Any]]:
    """A model that says what it predicts, and what the card says of it."""
    opened = open_for(path, copy, samples, normaliser)
    if isinstance(opened, PythonModel):
        if told is not None:
            raise ValueError(f"{path} says itself what it predicts; leave {told!r} away")
    else:
        opened = _labelled(opened, told, samples, normaliser, seed)
    return opened, opened.provenance()


def _labelled(
    checkpoint: Checkpoint,
    told: str | None,
    samples: Samples,
    normaliser: Normaliser | None,
    seed: int,
) -> Checkpoint:
    """The checkpoint with its kind of prediction: told, written in it, or detected."""
    if told is not None:
        check_prediction(told)
        return checkpoint._replace(prediction=told)
    if checkpoint.prediction is not None:
        return checkpoint
    found = detect_model(checkpoint, samples, normaliser, seed)
    if found.confidence < SURE:
        raise ValueError(
            f"{checkpoint.path} does not say what it predicts, and the data do not tell "
            f"(best: {found.prediction}, confidence {found.confidence:.2f}); give "
            "--base-prediction or --expert-prediction, and check --normaliser"
        )
    say(
        f"{checkpoint.path} predicts {found.prediction} (confidence {found.confidence:.2f})"
    )
    return checkpoint._replace(prediction=found.prediction, confidence=found.confidence)


def said_by(opened: Opened, layout: ContextLayout | None) -> str | None:
    """What a model says it predicts."""
    if isinstance(opened, PythonModel):
        return opened.declared(layout).prediction
    return opened.prediction


def detect_model(
    opened: Opened,
    samples: Samples,
    normaliser: Normaliser | None,
    seed: int,
    pinned: Mask | None = None,
) -> Detection:
    """What the model predicts, found in a few of the samples."""
    x, contexts = _few(samples, normaliser, seed)
    model: Any = opened.model(normaliser)
    if contexts is None:
        apply, process = model.apply, model.process
    else:
        apply = lambda x, time, context: model(context).apply(x, time)
        process = opened.declared(samples.layout).process
    key = jax.random.key(seed)
    return detect_prediction(apply, process, x, key, contexts=contexts, pinned=pinned)


def detect_asking(
    opened: Opened,
    samples: Samples,
    normaliser: Normaliser | None,
    seed: int,
    pinned: Mask | None,
    kind: Any,
) -> Convention:
    """How the model wants to be asked, found in a few of the samples."""
    x, contexts = _few(samples, normaliser, seed)
    if isinstance(opened, Checkpoint):
        opened = opened._replace(prediction=kind)
    model: Any = opened.model(normaliser)
    key = jax.random.key(seed)
    return detect_convention(model, x, key, contexts=contexts, pinned=pinned)


def said_of_asking(found: Convention) -> str:
    """One line about the way a model is asked."""
    here, best = found.explained[AS_DECLARED], found.explained[found.best]
    if found.best != AS_DECLARED:
        return (
            f"asked {found.best} the model explains {best:.3f} of the data instead of "
            f"{here:.3f} (confidence {found.confidence:.2f}): what it declares is wrong"
        )
    if here < -NOISE:
        return (
            "the model says less of these data than their mean and variance: other data or "
            "coordinates, a layer that was not loaded, or an output of another kind"
        )
    return f"asked as declared the model explains {here:.3f} of the data, no other way more"


def _few(samples: Samples, normaliser: Normaliser | None, seed: int) -> tuple[Any, Any]:
    """Some samples in the coordinates of the model, and their contexts."""
    rng = np.random.default_rng(seed)
    picks = rng.choice(len(samples.x), min(FEW, len(samples.x)))
    x = samples.x[picks]
    x = x if normaliser is None else normalise(normaliser, x)
    contexts = {name: rows[picks] for name, rows in samples.context.items()}
    return x, contexts or None
