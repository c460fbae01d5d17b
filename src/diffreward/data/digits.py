"""The digits that scikit-learn carries: 1,797 scans of 8 x 8 grey values, 10 classes."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class LabelledImages(NamedTuple):
    """Images in [-1, 1] and their classes."""

    images: Float[np.ndarray, "count height width channels"]
    labels: Int[np.ndarray, " count"]


def load_digits() -> LabelledImages:
    """All of them, in the order of the file.

    Raises:
        ValueError: if scikit-learn is not installed.
    """
    try:
        from sklearn import datasets  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            f"the digits come with scikit-learn ({error}); pip install -e '.[images]'"
        ) from error
    images, labels = datasets.load_digits(return_X_y=True)
    images = np.asarray(images, np.float32).reshape(-1, 8, 8, 1)
    return LabelledImages(images / 8 - 1, np.asarray(labels, np.int32))


def select_images(data: LabelledImages, index: np.ndarray) -> LabelledImages:
    """The images of given indices."""
    return LabelledImages(data.images[index], data.labels[index])
