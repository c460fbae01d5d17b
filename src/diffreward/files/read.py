"""Reads files of strangers: once, within limits, refused in one line if they are bad."""

import contextlib
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
    note(file)
    try:
        yield file
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


def _read(path: Path, most: int) -> bytes:
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
        with open(handle, "rb", closefd=False) as file:
            data = file.read(about.st_size)
            more = file.read(1)
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or "not enough memory"
        raise FileValueError(f"{path} cannot be read: {reason}") from None
    finally:
        os.close(handle)
    if more or len(data) != about.st_size:
        raise FileValueError(f"{path} changed while it was read; run the command again")
    return data
