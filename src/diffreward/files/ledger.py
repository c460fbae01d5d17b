"""Identity of what was read: digests of the very bytes that were used."""

import contextlib
import contextvars
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from diffreward.files.content import FileValueError

Ledger = dict[Path, str]
"""Digests of files by path."""
_ledgers: contextvars.ContextVar[tuple[Ledger, ...]] = contextvars.ContextVar(
    "ledgers", default=()
)


@contextlib.contextmanager
def recorded() -> Iterator[Ledger]:
    """Collects the digests of all files that are read in the block.

    A file that is read twice with different bytes is refused.
    """
    ledger: Ledger = {}
    token = _ledgers.set((*_ledgers.get(), ledger))
    try:
        yield ledger
    finally:
        _ledgers.reset(token)


def note(path: Path, sha256: str) -> None:
    """Writes a file's digest into every ledger that is open.

    Raises:
        FileValueError: if one of them knows the file with other bytes.
    """
    for ledger in _ledgers.get():
        if ledger.setdefault(path, sha256) != sha256:
            raise FileValueError(
                f"{path} changed while it was in use; run the command again"
            )


def digest(ledger: Mapping[Path, str], root: str | Path) -> str:
    """One digest of recorded files: of a single file its own, else of names and bytes.

    Args:
        ledger: from :func:`recorded`.
        root: names are taken relative to it, so a folder may move.
    """
    if list(ledger) == [Path(root)]:
        return ledger[Path(root)]
    names = {Path(os.path.relpath(p, root)).as_posix(): sha for p, sha in ledger.items()}
    return hashlib.sha256(json.dumps(names, sort_keys=True).encode()).hexdigest()
