"""Names that people write: one of those that are known, or a message with the nearest."""

import difflib
from collections.abc import Collection, Iterable

SHOWN = 80
"""Letters of a wrong name that are compared and repeated."""


def choose(kind: str, name: object, known: Collection[str]) -> str:
    """Returns ``name`` if known.

    Args:
        kind: what it names, for the message.
        name: what somebody wrote; anything but a string is unknown.
        known: names that exist.

    Raises:
        ValueError: with the nearest known name, and all of them.
    """
    if isinstance(name, str) and name in known:
        return name
    wrong = f"unknown {kind} {repr(name)[:SHOWN]}"
    if not known:
        raise ValueError(f"{wrong}; there is none")
    raise ValueError(
        f"{wrong}; did you mean {nearest(str(name), known)!r}? "
        f"(known: {', '.join(sorted(known))})"
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is spelled most alike.

    Raises:
        ValueError: if none is known.
    """
    found = difflib.get_close_matches(name[:SHOWN], list(known), n=1, cutoff=0.0)
    if not found:
        raise ValueError(f"{name[:SHOWN]!r} has no near name: none is known")
    return found[0]
