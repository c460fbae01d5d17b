"""The bytes of one file, and what they may ask for."""

import functools
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

from diffreward.text import one_line

MIB = 2**20
"""Bytes of a mebibyte."""
LARGE = 32 * 2**30
"""Bytes a file of arrays may have."""
SMALL = 64 * MIB
"""Bytes a text may have: configs, prompts, vocabularies, cards."""
SHARE = 32
"""Bytes of memory that every byte of a file may ask for, beside ``SMALL`` for free."""
SETTING = "DIFFREWARD_MEMORY"
"""Variable of the environment that replaces these limits by a number of MiB."""


class FileValueError(ValueError):
    """A file that cannot be used; the message names it and says why, in one line.

    It quotes the file, so whatever shows it must not obey it.
    """

    def __init__(self, message: str):
        """Writes the message's control characters out."""
        super().__init__(one_line(message))


class File:
    """The bytes of a file, read once: what is hashed is what is parsed."""

    def __init__(self, path: Path, data: bytes):
        """Keeps the bytes; see :func:`reading`."""
        self.path, self.data = path, data
        self._left = limit() if SETTING in os.environ else SMALL + SHARE * len(data)

    @functools.cached_property
    def sha256(self) -> str:
        """Digest of the bytes."""
        return hashlib.sha256(self.data).hexdigest()

    def stream(self) -> io.BytesIO:
        """The bytes as a file object."""
        return io.BytesIO(self.data)

    def text(self) -> str:
        """The bytes as UTF-8 text; a byte order mark is left out.

        Raises:
            FileValueError: if they are none.
        """
        try:
            return self.data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise FileValueError(f"{self.path} is not UTF-8 text ({error})") from None

    def json(self) -> Any:
        """The bytes as JSON.

        Raises:
            FileValueError: if they are none.
        """
        try:
            return json.loads(self.text())
        except (ValueError, RecursionError) as error:
            if isinstance(error, FileValueError):
                raise
            raise FileValueError(f"{self.path} is not valid JSON ({error})") from None

    def spend(self, count: int, what: str) -> None:
        """Asks for memory on behalf of this file, before it is allocated.

        Args:
            count: bytes.
            what: they are for, for the message.

        Raises:
            FileValueError: if the file asks for more than its size allows.
        """
        self._left -= count
        if self._left < 0:
            raise FileValueError(
                f"{self.path}: {what} asks for {count / MIB:,.0f} MiB, more than a file of "
                f"{len(self.data):,} bytes may; if you trust it, set {SETTING} to the MiB "
                "that one file may ask for"
            )


def limit(default: int = LARGE) -> int:
    """Bytes that one file may have or ask for: the default, or what the user allows.

    Raises:
        ValueError: if ``DIFFREWARD_MEMORY`` is no number of MiB.
    """
    told = os.environ.get(SETTING)
    if told is None:
        return default
    if not told.isdecimal() or not int(told):
        raise ValueError(f"{SETTING} = {told!r} is no number of MiB")
    return int(told) * MIB
