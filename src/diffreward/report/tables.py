"""Markdown tables from records."""

from collections.abc import Sequence

from diffreward.text import markdown_text


class Markup(str):
    """Text of our own, whose markup a table obeys."""

    __slots__ = ()


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; numbers get two decimals, triples become an interval.

    Text stays within its cell: markup in it is shown, not obeyed, unless it is our own
    (:class:`Markup`).
    """
    names = map(cell, header)
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
    return "\n".join(lines)


def cell(value: object) -> str:
    """Text of one cell: floats, (value, low, high) triples, or anything else.

    A number that is not known (None, alone or in a triple) is a dash.
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, list | tuple) and len(value) == 3 and not _texts(value):
        return interval(value)
    return value if isinstance(value, Markup) else markdown_text(value)


def interval(triple: Sequence[float | int | None], form: str = ".2f") -> Markup:
    """``value [low, high]`` of a triple, each number in the given form."""
    value, low, high = ("–" if v is None else format(v, form) for v in triple)
    return Markup(f"{value} [{low}, {high}]")


def _texts(values: Sequence[object]) -> bool:
    return not all(v is None or isinstance(v, int | float) for v in values)
