"""Pages of the API reference, their missing words, and links to them from all others."""

import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging

from docs.reference import public

LOGGER = logging.getLogger(__name__)
SECTIONS = {
    "function": "Functions",
    "class": "Classes",
    "data": "Values and types",
    "exception": "Exceptions",
}
"""Kinds of names in their order on a page."""
FOLDER = "api"
LONGEST = 100
"""Letters of a value that is shown."""


def write(app: Sphinx) -> None:
    """Writes a page per public module into ``docs/api``, and a table of them."""
    folder = app.srcdir / FOLDER
    folder.mkdir(exist_ok=True)
    wanted = {f"{module}.rst": page(module) for module in public.modules()}
    table = [".. autosummary::", "", *(f"   {name}" for name in public.modules()), ""]
    wanted["packages.txt"] = "\n".join(table)
    for old in folder.iterdir():
        if old.name not in wanted:
            old.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text)


def page(module: str) -> str:
    """The page of a module: its docstring, and sections of its names."""
    lines = [heading(module, "="), f".. automodule:: {module}", "   :no-members:", ""]
    kinds = {name: public.kind(module, name) for name in public.names(module)}
    for kind, title in SECTIONS.items():
        chosen = [name for name in kinds if kinds[name] == kind]
        if not chosen:
            continue
        lines += [heading(title, "-"), ".. autosummary::", "   :nosignatures:", ""]
        homes = {name: public.home(module, name) for name in chosen}
        here = [name for name in chosen if homes[name] == module]
        lines += [f"   {n}" if n in here else f"   ~{homes[n]}.{n}" for n in chosen]
        lines.append("")
        for name in here:
            lines.append(f".. auto{kind}:: {module}.{name}")
            if kind == "class":
                # Fields stand in the signature and, with what they mean, below it.
                fields = ", ".join(public.fields(public.value_of(module, name)))
                lines += ["   :members:", "   :special-members: __call__"]
                lines += [f"   :exclude-members: {fields}"] if fields else []
            elif kind == "data":
                lines.append(f"   :annotation: {shown(public.source(module, name))}")
            lines.append("")
    return "\n".join(lines)


def shown(value: str) -> str:
    """The source of a value as a signature shows it: the whole if it is short."""
    return f"= {value}" if value and len(value) <= LONGEST else ""


def heading(text: str, line: str) -> str:
    """A title of reStructuredText."""
    return f"{text}\n{line * len(text)}\n"


def describe(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Adds what is written about a value; complains of a public name without words."""
    module, _, last = name.rpartition(".")
    if module not in public.modules() or last not in public.names(module):
        return
    text = public.docstring(module, last)
    if not text:
        LOGGER.warning(
            "%s has no docstring", name, type="reference", subtype="undocumented"
        )
    if public.kind(module, last) == "data":
        lines[:] = [*text.splitlines(), ""]
    elif public.kind(module, last) == "class":
        for field, (_, _, meaning) in public.fields(obj).items():
            if meaning:
                lines.append(f":param {field}: {' '.join(meaning.split())}")


def link_code(app: Sphinx, doctree: nodes.document) -> None:
    """Makes ``reward.align`` a link to its page, wherever it stands as code."""
    for literal in list(doctree.findall(nodes.literal)):
        target = target_of(literal.astext())
        linked = isinstance(literal.parent, nodes.reference | addnodes.pending_xref)
        if target is None or linked:
            continue
        xref = addnodes.pending_xref(
            "", refdomain="py", reftype="obj", reftarget=target, refdoc=app.env.docname
        )
        literal.replace_self(xref)
        xref += literal


def target_of(code: str) -> str | None:
    """The full name of a public name in code like ``reward.align(..., "paper")``."""
    if code in public.modules():
        return code
    match = re.fullmatch(r"(?:diffreward\.)?(\w+)\.(\w+)(?:\(.*\))?", code)
    if match is None or f"diffreward.{match[1]}" not in public.modules():
        return None
    module, name = f"diffreward.{match[1]}", match[2]
    known = name in public.names(module)
    return f"{public.home(module, name)}.{name}" if known else None
