"""The context of a conditional reward, as its card has it."""

from typing import Any

from diffreward.card.schema import context_size
from diffreward.diffusion import ContextLayout, context_layout


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
