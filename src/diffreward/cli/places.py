"""Where results go: checked before anything is read, and kept while they are made."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from diffreward import card, files
from diffreward.extract import has_steps


def check_card_place(out: Path, inputs: list[Path], *, replace: bool) -> None:
    """Refuses a place for a card in which an input would be lost, or nothing can be made.

    Raises:
        ValueError: naming it.
    """
    _check_name(out)
    for path in inputs:
        if _within(out, path) or _within(path, out):
            raise ValueError(f"--out {out} is, holds or lies in the input {path}")
        if _within(path, work_folder(out)):
            raise ValueError(
                f"{path} lies in {work_folder(out)}, which is for the training"
            )
    if replace or not out.exists():
        card.check_place(out, replace=replace)
    _check_writable(out)


def check_scores_place(out: Path, inputs: list[Path]) -> None:
    """The same for a file of scores.

    Raises:
        ValueError: naming it.
    """
    _check_name(out)
    if out.suffix != ".npy":
        raise ValueError(f"--out {out}: scores are written as .npy; name such a file")
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder; name a file in it")
    for path in inputs:
        if _within(out, path):
            raise ValueError(f"--out {out} is, or lies in, the input {path}")
    _check_writable(out)


def work_folder(out: Path) -> Path:
    """The folder of the training, beside the card until the card stands."""
    return out.with_name(out.name + ".training")


@contextlib.contextmanager
def claimed(work: Path, *, restart: bool = False) -> Iterator[None]:
    """Keeps the work folder for this process; what no checkpoint stands in is removed.

    Args:
        work: the folder.
        restart: whether earlier steps are given up.

    Raises:
        ValueError: if another process works there, or the folder is not of our making.
    """
    if work.is_symlink():
        raise ValueError(f"{work} is a link; move it away, or choose another --out")
    with files.claim(work, "--out"):
        if not files.is_marked(work):
            if any(work.iterdir()):
                raise ValueError(
                    f"{work} was not made by this version and may hold work of yours; move "
                    "it away, or choose another --out"
                )
            files.mark(work)
        elif restart:
            files.clear(work)
        try:
            yield
        except KeyboardInterrupt:
            kept = has_steps(work)
            way = "the same command goes on" if kept else "no step was saved yet"
            raise KeyboardInterrupt(way) from None
        finally:
            if files.is_marked(work) and not has_steps(work):
                files.discard(work)


def _check_name(out: Path) -> None:
    if out.name in ("", ".."):
        raise ValueError(f"--out {out} names no file or folder of its own")


def _within(path: Path, folder: Path) -> bool:
    """Whether a path is another one or lies in it, links and hard links followed."""
    real, outer = path.resolve(), folder.resolve()
    if real.is_relative_to(outer):
        return True
    return path.exists() and folder.exists() and os.path.samefile(path, folder)


def _check_writable(out: Path) -> None:
    parent = next(p for p in out.absolute().parents if p.exists())
    if not parent.is_dir():
        raise ValueError(f"--out {out}: {parent} is no folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ValueError(f"--out {out}: {parent} is not writable; choose another --out")
