"""Writes files and folders, whole or not at all."""

import contextlib
import ctypes
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from diffreward.files.folders import MARK, is_marked, lock
from diffreward.files.grow import sync
from diffreward.files.owner import follows


@contextlib.contextmanager
def writing(target: str | Path, *, replace: bool = True) -> Iterator[Path]:
    """Makes a file or a folder, whole or not at all.

    The block makes it at the path it is given, in a private folder beside the target.
    When the block ends well it is forced to the disk and renamed; a folder that it
    replaces is exchanged in the same instant. Otherwise the old one stands and nothing
    is left, or after a kill only a marked folder that the next call removes.

    Args:
        target: what to make.
        replace: whether it may exist.

    Raises:
        FileExistsError: if it exists and may not, or is no file or folder.
        OSError: naming the target, if it cannot be written.
    """
    target = Path(target)
    if follows():
        with tempfile.TemporaryDirectory() as room:
            yield Path(room) / target.name
        return
    _check_target(target, replace)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _workshop(target) as (room, mode):
            made = room / target.name
            yield made
            _settle(made, mode)
            _publish(made, target, room)
            sync(target.parent)
    except OSError as error:
        # An error of the block that says all there is to say keeps its words.
        if error.strerror is None:
            raise
        raise OSError(f"{target} cannot be written: {error.strerror}") from error


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes a file, whole or not at all; see :func:`writing`."""
    with writing(path) as made:
        made.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text, whole or not at all; see :func:`writing`."""
    write_bytes(path, text.encode())


def _check_target(target: Path, replace: bool) -> None:
    if not target.name:
        raise FileExistsError(f"{str(target)!r} names no file")
    if target.is_symlink() or target.exists():
        if not replace:
            raise FileExistsError(f"{target} exists; choose another name")
        if not (target.is_symlink() or target.is_file() or target.is_dir()):
            raise FileExistsError(f"{target} is a device or pipe, no regular file")


@contextlib.contextmanager
def _workshop(target: Path) -> Iterator[tuple[Path, int]]:
    """A private folder beside the target, and the mode of new files here."""
    prefix, suffix = f".{target.name[:100]}.", ".partial"
    for left in sorted(target.parent.glob(f"{_escaped(prefix)}*{suffix}")):
        _sweep(left)
    room = Path(tempfile.mkdtemp(suffix, prefix, target.parent))
    handle = os.open(room, os.O_RDONLY | os.O_DIRECTORY)
    try:
        lock(handle)
        # Marked only once locked: whoever finds the mark and no lock may delete.
        (room / MARK).touch()
        yield room, stat.S_IMODE((room / MARK).stat().st_mode)
    finally:
        shutil.rmtree(room, ignore_errors=True)
        os.close(handle)


def _escaped(text: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def _sweep(room: Path) -> None:
    """Removes what a killed process left: marked, our own, and locked by nobody."""
    try:
        handle = os.open(room, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        mine = os.fstat(handle).st_uid == os.geteuid()
        if mine and is_marked(room) and lock(handle):
            shutil.rmtree(room, ignore_errors=True)
    finally:
        os.close(handle)


def _settle(made: Path, mode: int) -> None:
    """Gives everything the permissions of new files, and forces it to the disk."""
    folder = mode | (mode & 0o444) >> 2
    paths = [made, *made.rglob("*")] if made.is_dir() else [made]
    for path in reversed(paths):
        if path.is_symlink():
            continue
        path.chmod(folder if path.is_dir() else mode)
        sync(path)


def _publish(made: Path, target: Path, room: Path) -> None:
    """Renames; what a folder replaces goes to the workshop, which is deleted."""
    if not (made.is_dir() and target.is_dir() and not target.is_symlink()):
        os.replace(made, target)
    elif not _exchange(made, target):
        os.replace(target, room / "old")
        os.replace(made, target)


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges two names in one instant; False where the system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    paths = os.fsencode(one), os.fsencode(other)
    return bool(rename) and not rename(here, paths[0], here, paths[1], exchange)
