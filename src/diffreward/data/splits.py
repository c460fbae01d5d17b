"""Seeded splits by episode, so that no window of a test episode was trained on."""

from collections.abc import Sequence

import numpy as np

SPLITS = ("train", "val", "test")
"""The parts of a data set, in the order of their fractions."""


def split_episodes(
    num_episodes: int, seed: int, fractions: Sequence[float] = (0.8, 0.1, 0.1)
) -> dict[str, np.ndarray]:
    """Disjoint, exhaustive, sorted episode indices for train, val and test.

    Raises:
        ValueError: the fractions are not three positive numbers that sum to one, or
            there are too few episodes for every part to get one.
    """
    total = sum(fractions)
    if len(fractions) != 3 or min(fractions) <= 0 or abs(total - 1) > 1e-6:
        raise ValueError(
            f"split: fractions {tuple(fractions)} must be three positive numbers "
            "that sum to 1"
        )
    ends = np.round(np.cumsum(fractions) * num_episodes).astype(int)
    order = np.random.default_rng(seed).permutation(num_episodes)
    parts = np.split(order, ends[:-1])
    if not all(len(part) for part in parts):
        raise ValueError(
            f"split: {num_episodes} episodes leave a part of {tuple(fractions)} empty; "
            "use more episodes or larger fractions"
        )
    return {name: np.sort(part) for name, part in zip(SPLITS, parts, strict=True)}
