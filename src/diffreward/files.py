"""The doors to the disk: what is read is read once, what is written is written whole.

Files come from strangers and disks fill up, so nothing in the project opens, writes,
renames or deletes beside these functions, except the libraries that keep checkpoints and
event files inside a run's own folder. A test parses the sources for it.
"""

import contextlib
import contextvars
import ctypes
import errno
import fcntl
import functools
import hashlib
import io
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from diffreward.text import one_line

MIB = 2**20
LARGE = 32 * 2**30
"""Bytes a file of arrays may have."""
SMALL = 64 * MIB
"""Bytes a text may have: configs, prompts, vocabularies, cards."""
SHARE = 32
"""Bytes of memory that every byte of a file may ask for, beside ``SMALL`` for free."""
SETTING = "DIFFREWARD_MEMORY"
"""Variable of the environment that replaces these limits by a number of MiB."""
MARK = ".diffreward"
"""File in every folder that this package made for itself and may delete."""


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
    for folder in _folders.get():
        if path != folder and path.is_relative_to(folder):
            inside(folder, str(path.relative_to(folder)))
    file = File(path, _read(path, limit(most)))
    for ledger in _ledgers.get():
        if ledger.setdefault(path, file.sha256) != file.sha256:
            raise FileValueError(
                f"{path} changed while it was in use; run the command again"
            )
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


def user_path(value: str) -> Path:
    """A path as a person writes it: ``~`` is the home folder.

    Raises:
        ValueError: if it is empty, or names a home that is not known.
    """
    if not value.strip() or "\0" in value:
        raise ValueError(f"must be a path, got {value!r}")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{value}: {error}") from None


def read_text(path: str | Path) -> str:
    """A text file, whole; see :func:`reading`."""
    with reading(path, most=SMALL) as file:
        return file.text()


def read_json(path: str | Path) -> Any:
    """A JSON file; see :func:`reading`."""
    with reading(path, most=SMALL) as file:
        return file.json()


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


def inside(folder: str | Path, name: Any) -> Path:
    """The path of a file that a folder names, which must lie in that folder.

    Args:
        folder: that somebody made.
        name: as written in one of its files.

    Raises:
        FileValueError: for anything but a plain relative name, and for links that lead
            out of the folder. (Links into the store of Hugging Face's cache are followed.)
    """
    folder = Path(folder)
    parts = Path(name).parts if isinstance(name, str) and "\0" not in name else ()
    if not parts or Path(name).is_absolute() or ".." in parts:
        raise FileValueError(f"{folder} names {name!r}, which is no file inside it")
    path = folder / name
    try:
        real, root = path.resolve(), folder.resolve()
    except (OSError, RuntimeError) as error:
        raise FileValueError(f"{path} cannot be followed: {error}") from None
    store = next((p for p in root.parents if p.name.startswith("models--")), None)
    if not real.is_relative_to(root) and not (store and real.is_relative_to(store)):
        raise FileValueError(
            f"{path} is a link that leads out of {folder}; copy the file there"
        )
    return path


_folders: contextvars.ContextVar[tuple[Path, ...]] = contextvars.ContextVar(
    "folders", default=()
)


def contained(read: Callable[..., Any]) -> Callable[..., Any]:
    """A reader of a folder (its first argument) that opens nothing outside through links.

    See :func:`inside`.
    """

    @functools.wraps(read)
    def reader(folder: str | Path, *args: Any, **options: Any) -> Any:
        token = _folders.set((*_folders.get(), Path(folder)))
        try:
            return read(folder, *args, **options)
        finally:
            _folders.reset(token)

    return reader


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


def sha256(path: str | Path) -> str:
    """Digest of a file."""
    with reading(path) as file:
        return file.sha256


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
    _check_target(target, replace)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _workshop(target) as (room, mode):
            made = room / target.name
            yield made
            _settle(made, mode)
            _publish(made, target, room)
            _sync(target.parent)
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
        _lock(handle)
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
        if mine and is_marked(room) and _lock(handle):
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
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not known here
            raise
    finally:
        os.close(handle)


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


def opened(path: Path, mode: str = "a") -> IO[Any]:
    """Opens a file that grows over a run, or across runs; a link is never followed.

    Args:
        path: of the file.
        mode: ``a``, ``ab`` or ``wb``.

    Raises:
        OSError: if it is a link, no regular file, or cannot be opened.
    """
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
    _sync(made)
    os.replace(made, target)
    _sync(target.parent)


def remove(path: Path) -> None:
    """Deletes one file of this program's, if it is there."""
    path.unlink(missing_ok=True)


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
        if not _lock(handle):
            raise ValueError(
                f"{folder}: another process works in this folder; wait for it, or choose "
                f"another {option}"
            )
        yield
    finally:
        os.close(handle)
        if made and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _lock(handle: int) -> bool:
    """Takes the lock of an open folder; False if another process has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks: then nobody watches
    return True
