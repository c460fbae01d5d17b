"""Reads files of strangers: once, within limits, refused in one line if they are bad."""

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffreward.files.content import LARGE, MIB, SETTING, SMALL, File, FileValueError, limit
from diffreward.files.ledger import note
from diffreward.files.paths import check_links


@contextlib.contextmanager
def reading(path: str | Path, *, most: int = LARGE) -> Iterator[File]:
    """Reads a regular file; the block parses it.

    Whatever a parser raises inside the block, of any library, becomes one line that names
    the file.

    Args:
        path: of the file. Devices, pipes and folders are refused.
        most: bytes it may have.

    Raises:
        FileNotFoundError: if there is none.
        FileValueError: if it is no regular file, too large, or cannot be parsed.
    """
    path = Path(path)
    check_links(path)
    file = File(path, _read(path, limit(most)))
    note(path, file.sha256)
    with _said_of(path):
        yield file


@contextlib.contextmanager
def streaming(path: str | Path, *, most: int = LARGE) -> Iterator["Stream"]:
    """Reads a regular file from its beginning to its end, in parts of the parser's size.

    For files of which a second copy in memory would be too much. As :func:`reading`, else;
    the digest is noted when the block ends, and what the block has not taken is an error.
    """
    path = Path(path)
    check_links(path)
    with _opened(path, limit(most)) as (handle, size), _said_of(path):
        stream = Stream(path, handle, size)
        yield stream
        stream.end()
    note(path, stream.sha256)


@contextlib.contextmanager
def _said_of(path: Path) -> Iterator[None]:
    """Whatever a parser raises becomes one line that names the file."""
    try:
        yield
    except (FileValueError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except MemoryError:
        raise FileValueError(f"{path} needs more memory than there is") from None
    except BaseException as error:  # panics of native code are no Exceptions
        reason = " ".join(str(error).split()) or type(error).__name__
        if str(path) in reason:
            raise FileValueError(reason) from error
        named = isinstance(error, ValueError | OSError | RuntimeError)
        what = "" if named else f"{type(error).__name__}: "
        raise FileValueError(f"{path} cannot be read: {what}{reason[:300]}") from error


def read_text(path: str | Path) -> str:
    """A text file, whole; see :func:`reading`."""
    with reading(path, most=SMALL) as file:
        return file.text()


def read_json(path: str | Path) -> Any:
    """A JSON file; see :func:`reading`."""
    with reading(path, most=SMALL) as file:
        return file.json()


def sha256(path: str | Path) -> str:
    """Digest of a file."""
    with reading(path) as file:
        return file.sha256


def beginning(path: str | Path, count: int) -> bytes:
    """The first bytes of a file, or all of a shorter one: what kind it is.

    Raises:
        FileNotFoundError: if there is none.
        FileValueError: if it is no regular file, or too large for any reader.
    """
    path = Path(path)
    check_links(path)
    with _opened(path, limit()) as (handle, _):
        return os.read(handle, count)


class Stream:
    """The bytes of a file, one part after the other: what is hashed is what is parsed."""

    def __init__(self, path: Path, handle: int, size: int):
        """Begins at the beginning; see :func:`streaming`."""
        self.path, self.size, self.left = path, size, size
        self._handle, self._hash = handle, hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Digest of what has been taken."""
        return self._hash.hexdigest()

    def take(self, count: int) -> bytearray:
        """The next bytes.

        Raises:
            FileValueError: if there are not as many.
        """
        if not 0 <= count <= self.left:
            raise FileValueError(
                f"{self.path} is cut short: {count:,} bytes are needed where {self.left:,} "
                "are left"
            )
        data = bytearray(count)
        rest = memoryview(data)
        while rest:
            done = os.readv(self._handle, [rest])
            if not done:
                raise FileValueError(_changed(self.path))
            rest = rest[done:]
        self._hash.update(data)
        self.left -= count
        return data

    def end(self) -> None:
        """Refuses a file that goes on.

        Raises:
            FileValueError: if it does.
        """
        if self.left:
            raise FileValueError(f"{self.path} has {self.left:,} bytes too many")
        if os.read(self._handle, 1):
            raise FileValueError(_changed(self.path))


def _read(path: Path, most: int) -> bytes:
    with _opened(path, most) as (handle, size):
        try:
            with open(handle, "rb", closefd=False) as file:
                data = file.read(size)
                more = file.read(1)
        except (OSError, MemoryError) as error:
            reason = getattr(error, "strerror", None) or "not enough memory"
            raise FileValueError(f"{path} cannot be read: {reason}") from None
    if more or len(data) != size:
        raise FileValueError(_changed(path))
    return data


def _changed(path: Path) -> str:
    return f"{path} changed while it was read; run the command again"


@contextlib.contextmanager
def _opened(path: Path, most: int) -> Iterator[tuple[int, int]]:
    """Handle and size of a regular file."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileValueError(f"{path} cannot be opened: {reason}") from None
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            kind = "folder" if stat.S_ISDIR(about.st_mode) else "device or pipe"
            raise FileValueError(f"{path} is a {kind}, no regular file")
        if about.st_size > most:
            raise FileValueError(
                f"{path} has {about.st_size / MIB:,.0f} MiB, more than the "
                f"{most / MIB:,.0f} MiB that such a file may have; set {SETTING} to the "
                "MiB you allow"
            )
        yield handle, about.st_size
    finally:
        os.close(handle)
