"""Silhouettes of ten animals, 28 x 28, that come with the package animal-mnist (MIT)."""

import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffreward.interop.numpy_pickle import read_pickle

NAMES = (
    *("bear", "bird", "cat", "cow", "dog"),
    *("elephant", "giraffe", "horse", "sheep", "zebra"),
)
PACKAGE = "animal_mnist"
FILES = ("animal_data_version_3.gz", "animal_label_version_3.gz")
SIDE = 28


class Animals(NamedTuple):
    """Silhouettes, bright on dark."""

    pictures: np.ndarray
    """(count, 28, 28), 0 to 255."""
    labels: np.ndarray
    """Indices of ``NAMES``."""


def load_animals() -> Animals:
    """All of them once: some stand in the file several times.

    The package itself is not imported: it needs libraries that its pictures do not.

    Raises:
        ValueError: if it is not installed, or its files are not what they were.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            "the pictures come with the package animal-mnist, which is not installed; "
            "pip install --no-deps animal-mnist"
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / "data" / "Animal_MNIST"
    pictures, labels = (read_pickle(folder / name) for name in FILES)
    if not (
        isinstance(pictures, np.ndarray)
        and isinstance(labels, np.ndarray)
        and pictures.dtype == np.uint8
        and pictures.shape[1:] == (SIDE, SIDE)
        and labels.shape == pictures.shape[:1]
        and np.array_equal(np.unique(labels), np.arange(len(NAMES)))
    ):
        raise ValueError(f"{folder} holds other arrays than those of animal-mnist 0.4")
    _, first = np.unique(pictures.reshape(len(pictures), -1), axis=0, return_index=True)
    keep = np.sort(first)
    return Animals(pictures[keep], labels[keep].astype(np.int64))
