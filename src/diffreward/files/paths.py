"""Paths in others' words: a person's, and names that must stay inside their folder."""

import contextvars
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffreward.files.content import FileValueError


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


def check_links(path: Path) -> None:
    """Refuses a path that a link leads out of a folder which is being read.

    Raises:
        FileValueError: see :func:`inside`; the folders are those of :func:`contained`.
    """
    for folder in _folders.get():
        if path != folder and path.is_relative_to(folder):
            inside(folder, str(path.relative_to(folder)))
