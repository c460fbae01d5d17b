"""Files of a run that grow line by line, and get their name or go once it is over."""

import errno
import os
import stat
from pathlib import Path
from typing import IO, Any

from diffreward.files.owner import follows


def opened(path: Path, mode: str = "a") -> IO[Any]:
    """Opens a file that grows over a run, or across runs; a link is never followed.

    Args:
        path: of the file.
        mode: ``a``, ``ab`` or ``wb``.

    Raises:
        OSError: if it is a link, no regular file, or cannot be opened.
    """
    if follows():
        return open(os.devnull, mode, encoding=None if "b" in mode else "utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    cut = os.O_TRUNC if mode.startswith("w") else os.O_APPEND
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | cut
    try:
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        link = "it is a link" if path.is_symlink() else error.strerror
        raise OSError(f"{path} cannot be written: {link}") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(f"{path} cannot be written: it is no regular file")
    return open(handle, mode, encoding=None if "b" in mode else "utf-8")


def move(made: Path, target: Path) -> None:
    """Gives a file that grew under another name its own, once it is whole."""
    if follows():
        return
    sync(made)
    os.replace(made, target)
    sync(target.parent)


def remove(path: Path) -> None:
    """Deletes one file of this program's, if it is there."""
    if not follows():
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Forces a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not known here
            raise
    finally:
        os.close(handle)
