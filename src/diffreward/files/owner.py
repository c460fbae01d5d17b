"""Which of several processes writes: one; what the others would write is dropped.

All processes of a run see one folder and do the same, so that what one of them writes is
what all would have written.
"""

import contextlib
from collections.abc import Iterator

_follows = False


def follow() -> None:
    """From now on this process writes nothing, deletes nothing, and holds no folder."""
    global _follows
    _follows = True


def follows() -> bool:
    """Whether another process writes for this one."""
    return _follows


@contextlib.contextmanager
def own_part() -> Iterator[None]:
    """In the block every process writes: files that no other process writes."""
    global _follows
    before, _follows = _follows, False
    try:
        yield
    finally:
        _follows = before
