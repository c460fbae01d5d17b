"""Values of arguments, refused as they are parsed: before anything is read or computed."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

from diffreward.files import user_path


class Parser(argparse.ArgumentParser):
    """Refuses wrong arguments as everything else is refused: with one line."""

    def error(self, message: str) -> None:
        """Raises what the command line prints.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"{message}; see {self.prog} --help")


def whole(least: int, most: int) -> Callable[[str], int]:
    """The type of whole numbers from ``least`` to ``most``."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from {least} to {most}, got {text!r}"
            )
        return value

    return number


def positive(text: str) -> float:
    """The type of finite positive numbers."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"must be a finite number above 0, got {text!r}")
    return value


def path(text: str) -> Path:
    """The type of paths; ``~`` is the home folder, also after ``=``."""
    try:
        return user_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def names(text: str) -> list[str]:
    """The type of names, separated by commas."""
    found = [name.strip() for name in text.split(",")]
    wrong = [name for name in found if not name.isidentifier() or name in ("x", "group")]
    if wrong or len(set(found)) != len(found):
        raise argparse.ArgumentTypeError(
            f"must be different words separated by commas, not x or group; got {text!r}"
        )
    return found
