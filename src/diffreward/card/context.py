"""The context of a conditional reward, as its card has it."""

from typing import Any

import numpy as np

from diffreward.card.schema import context_size
from diffreward.diffusion import ContextLayout, context_layout
from diffreward.reward import Reward

OF_GRADIENTS = (
    "gradient_alignment",
    "residual_alignment",
    "distilled_energies",
    "energy_pair",
)
"""Extractors that learn from gradients, in which no function of the condition shows."""


def conditioned(reward: Reward) -> int:
    """How many entries of a sample are a condition."""
    return 0 if reward.pinned is None else int(np.sum(reward.pinned))


def limits_of(reward: Reward) -> list[str]:
    """What a condition forbids, in sentences."""
    if not conditioned(reward) or reward.extractor not in OF_GRADIENTS:
        return []
    return [
        "Values compare samples of one condition: what a condition itself is worth is in "
        "no gradient, so that it cannot rank samples of different conditions."
    ]


def described(context: ContextLayout | None) -> dict[str, Any] | None:
    """A context as a card has it. Its coordinates are among those of the whole vector."""
    if context is None:
        return None
    parts = {part.name: list(part.shape) for part in context.parts}
    return {"sample": list(context.shape), "parts": parts}


def layout_of(
    context: dict[str, Any] | None, shape: tuple[int, ...]
) -> ContextLayout | None:
    """The context that a card describes; inverse of :func:`described`.

    Raises:
        ValueError: if vectors of samples with it have another shape.
    """
    if context is None:
        return None
    if shape != (context_size(context),):
        raise ValueError(
            f"its context is of vectors of {context_size(context)} numbers, samples are "
            f"shaped {shape}"
        )
    parts = {name: tuple(part) for name, part in context["parts"].items()}
    return context_layout(tuple(context["sample"]), parts)
