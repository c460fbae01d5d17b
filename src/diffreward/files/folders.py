"""Folders of our own: marked, so that they may be deleted, and held by one process."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from diffreward.files.grow import opened
from diffreward.files.owner import follows

MARK = ".diffreward"
"""File in every folder that this package made for itself and may delete."""


def mark(folder: Path) -> None:
    """Marks a folder as made by this package, which may delete it again."""
    with opened(folder / MARK):
        pass


def is_marked(folder: Path) -> bool:
    """Whether this package made the folder."""
    return not folder.is_symlink() and (folder / MARK).is_file()


def clear(folder: Path) -> None:
    """Empties a folder that carries our mark, which stays: files first, then folders.

    Raises:
        ValueError: if it does not carry it.
    """
    if not is_marked(folder):
        raise ValueError(f"{folder} was not made by this program and is not deleted")
    if follows():
        return
    is_folder = lambda path: path.is_dir() and not path.is_symlink()
    for path in sorted(folder.iterdir(), key=is_folder):
        if is_folder(path):
            shutil.rmtree(path)
        elif path.name != MARK:
            path.unlink()


def discard(folder: Path) -> None:
    """Deletes a folder that carries our mark, the mark last; anything else stays.

    Raises:
        ValueError: if it does not carry it.
    """
    clear(folder)
    if follows():
        return
    (folder / MARK).unlink()
    folder.rmdir()


@contextlib.contextmanager
def claim(folder: Path, option: str = "--workdir") -> Iterator[None]:
    """Keeps a run's folder for this process as long as the block lasts.

    The lock is the system's own, on the folder: nothing stays behind, however it ends,
    and neither does a folder that was made for it and stayed empty.

    Args:
        folder: of the run.
        option: that named it, for the message.

    Raises:
        ValueError: if the folder cannot be made, or another process works in it.
    """
    if follows():  # another process holds it for all
        yield
        return
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ValueError(
            f"{folder}: not a folder that can be used ({error.strerror}); choose another "
            f"{option}"
        ) from error
    try:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ValueError(f"{folder}: not writable; choose another {option}")
        if not lock(handle):
            raise ValueError(
                f"{folder}: another process works in this folder; wait for it, or choose "
                f"another {option}"
            )
        yield
    finally:
        os.close(handle)
        if made and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def lock(handle: int) -> bool:
    """Takes the lock of an open folder; False if another process has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks: then nobody watches
    return True
