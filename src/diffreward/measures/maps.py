"""How much of a reward map lies around the goal."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Concentration(NamedTuple):
    """Area under the mass-within-radius curve, and that of a flat map."""

    area: float
    flat: float


def mass_near_goal(
    values: Float[np.ndarray, "*grid"],
    centres: Float[np.ndarray, "*grid dim"],
    goal: Float[np.ndarray, " dim"],
    radius: float,
) -> Concentration:
    """Area under r -> share of reward within r of the goal, for r up to ``radius``.

    The share counts every bin by its excess over the lowest known bin, so the map's
    free constant and positive scale do not matter. The area over ``radius`` equals the
    mean of max(0, 1 - distance / radius) over that share: 1 if all mass is at the goal,
    0 if none is within ``radius``. The map's shape leaves some mass near the goal
    whatever its values, which ``flat`` gives: compare the two.

    Args:
        values: reward per bin; NaN where unknown.
        centres: position of every bin.
        goal: position of the goal.
        radius: largest distance that counts, in the units of the positions.

    Raises:
        ValueError: if no bin is known, all values are equal, or ``radius`` is not
            positive.
    """
    known = np.isfinite(values)
    if not known.any():
        raise ValueError("the map has no known bin")
    if radius <= 0:
        raise ValueError(f"radius must be positive, got {radius:g}")
    excess = values[known] - values[known].min()
    if excess.sum() == 0:
        raise ValueError("all known bins have the same value; the map shows no mass")
    near = np.maximum(0, 1 - np.linalg.norm(centres[known] - goal, axis=-1) / radius)
    return Concentration(float(near @ excess / excess.sum()), float(near.mean()))
