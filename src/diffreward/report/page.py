"""A report as people open it: its Markdown, and one HTML file that needs nothing else.

Both say the same. The HTML has the pictures inside, tables that sort, films that play,
and a gallery where there is one; it loads nothing, from no network and no disk.
"""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup as Safe
from PIL import Image

from diffreward import files
from diffreward.text import say

ROOM = 9 * files.MIB
"""Bytes of pictures that a page has inside; what is beyond is named instead."""
SIDE = 192
"""Pixels of a picture in a gallery, at most."""
SMALL = 64
"""Sides up to which pictures are kept losslessly."""
KINDS = {".png": "image/png", ".gif": "image/gif", ".jpg": "image/jpeg"}


class Picture(NamedTuple):
    """One entry of a gallery."""

    image: np.ndarray
    """(height, width, 1 or 3), in [0, 1]."""
    text: str
    """What it was asked for."""
    value: float
    """What the gallery is ordered by."""
    facts: dict[str, str]
    """What it is filtered by: every picture has the same names."""


class Gallery(NamedTuple):
    """Pictures to look through."""

    title: str
    text: str
    pictures: Sequence[Picture]


def write_report(folder: Path, text: str, gallery: Gallery | None = None) -> None:
    """Writes ``report.md`` and ``report.html`` into a folder, each whole or not at all.

    Args:
        folder: of the run; pictures that the text shows lie in it.
        text: Markdown. HTML in it is shown, not obeyed.
        gallery: pictures at the end of the HTML.

    Raises:
        ValueError: if pictures of the gallery have facts of different names.
    """
    files.write_text(folder / "report.md", text)
    files.write_text(folder / "report.html", html(folder, text, gallery))


def html(folder: Path, text: str, gallery: Gallery | None = None) -> str:
    """The page; see :func:`write_report`."""
    loader = jinja2.PackageLoader("diffreward.report")
    made = jinja2.Environment(loader=loader, autoescape=True)
    made.filters["picture"] = _thumbnail
    body, title = _body(folder, text)
    choices = {} if gallery is None else _choices(gallery.pictures)
    return made.get_template("page.html").render(
        title=title, body=Safe(body), gallery=gallery, choices=choices
    )


def _body(folder: Path, text: str) -> tuple[str, str]:
    """The Markdown as HTML, and its first heading."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    markdown.add_render_rule("table_open", lambda *_: '<div class="wide"><table>')
    markdown.add_render_rule("table_close", lambda *_: "</table></div>")
    tokens, room = markdown.parse(text), ROOM
    for child in (c for token in tokens for c in token.children or ()):
        if child.type == "image":
            room -= _inline(child, folder, room)
    heading = next((i for i, token in enumerate(tokens) if token.tag == "h1"), None)
    words = [] if heading is None else tokens[heading + 1].children or []
    title = "".join(child.content for child in words) or "Report"
    return markdown.renderer.render(tokens, markdown.options, {}), title


def _inline(token: Token, folder: Path, room: int) -> int:
    """Puts a picture's bytes into the page; returns how many."""
    name = str(token.attrGet("src"))
    try:
        path = files.inside(folder, name)
        with files.reading(path) as file:
            data = file.data
    except (files.FileValueError, FileNotFoundError):
        return _word(token, f"{name} is not here")
    if len(data) > room:
        say(f"report.html names {name} ({len(data) / files.MIB:.1f} MiB) instead of it")
        return _word(token, f"{name} lies beside this page")
    token.attrSet("src", _uri(data, KINDS.get(path.suffix, "image/png")))
    token.attrSet("class", "figure")
    return len(data)


def _word(token: Token, text: str) -> int:
    """Makes a token text."""
    token.type, token.tag, token.content, token.children = "text", "", text, None
    return 0


def _choices(pictures: Sequence[Picture]) -> dict[str, list[str]]:
    """Values of every fact that has several."""
    names = list(pictures[0].facts) if pictures else []
    if any(list(p.facts) != names for p in pictures):
        raise ValueError("pictures of one gallery need facts of the same names")
    found = {n: sorted({p.facts[n] for p in pictures}) for n in names}
    return {n: values for n, values in found.items() if len(values) > 1}


def _thumbnail(image: np.ndarray) -> str:
    """A picture small enough for a gallery, as the address of its own bytes."""
    pixels = np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
    made = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    made.thumbnail((SIDE, SIDE))
    kind = "png" if max(pixels.shape[:2]) <= SMALL else "jpeg"
    out = io.BytesIO()
    made.save(out, kind, **({"quality": 85} if kind == "jpeg" else {"optimize": True}))
    return _uri(out.getvalue(), f"image/{kind}")


def _uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
