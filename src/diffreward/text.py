"""The doors to the screen and to pages: nothing from outside acts there.

Names and sentences of cards, configs, checkpoints and prompts are other people's. On a
terminal their control characters stay visible; on a page they are words, never markup.
"""

import re
import sys
import unicodedata
from typing import Any

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
"""Unicode's controls, formats (right-to-left marks among them), and line separators."""
_MARKUP = re.compile(r"([\\`*\[\]|<>&~$]|(?<=\])\()")
_BLOCK = re.compile(r"(#{1,6}|[-+])(\s|$)|[-=_]{3,}\s*$")
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def printable(value: Any, *, keep: str = "\n\t") -> str:
    r"""Text with its control and direction characters written out, as ``\x1b``.

    Args:
        value: anything; its ``str``.
        keep: control characters that stay.
    """
    return "".join(
        c.encode("unicode_escape").decode("ascii")
        if unicodedata.category(c) in _HIDDEN and c not in keep
        else c
        for c in str(value)
    )


def one_line(value: Any) -> str:
    """Printable text without line breaks."""
    return printable(" ".join(str(value).split()), keep="")


def markdown_text(value: Any) -> str:
    """Text as words on a page of Markdown: one line without markup, links or HTML."""
    words = _MARKUP.sub(lambda m: _ENTITIES.get(m[0], "\\" + m[0]), one_line(value))
    # At the beginning of a line these make headings, lists and rules.
    return f"\\{words}" if _BLOCK.match(words) else words


def markdown_code(value: Any) -> str:
    """Text as code within a line of Markdown."""
    words = one_line(value)
    runs = [len(run) for run in re.findall("`+", words)]
    fence = "`" * (max(runs, default=0) + 1)
    space = " " if runs else ""
    return f"{fence}{space}{words}{space}{fence}"


def say(value: Any, stream: Any = None) -> None:
    """Prints lines to standard output (or a stream), controls written out."""
    stream = sys.stdout if stream is None else stream
    encoding = getattr(stream, "encoding", None) or "utf-8"
    words = printable(value).encode(encoding, "backslashreplace").decode(encoding)
    print(words, file=stream, flush=True)  # noqa: T201


def complain(error: Any) -> None:
    """Prints ``error: ...`` in one line to standard error."""
    say(f"error: {one_line(error)}", sys.stderr)
