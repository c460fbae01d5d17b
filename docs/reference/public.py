"""The public names of the project, and what is written about each.

Read by the site's build, which makes a page per module of them, and by the tests, which
need no Sphinx.
"""

import ast
import importlib
import inspect
import pkgutil
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import diffreward

WITHOUT_ALL = ("diffreward.data.laws", "diffreward.types")
"""Modules beside the packages whose names other docstrings speak of."""


def modules() -> list[str]:
    """Every module with public names: the package, its packages, and `WITHOUT_ALL`."""
    found = pkgutil.iter_modules(diffreward.__path__)
    packages = sorted(f"diffreward.{m.name}" for m in found if m.ispkg)
    return ["diffreward", *packages, *WITHOUT_ALL]


def names(module: str) -> list[str]:
    """What ``__all__`` lists; without one, what the module defines without underscore.

    Modules among them have pages of their own.
    """
    mod = importlib.import_module(module)
    listed = getattr(mod, "__all__", None)
    if listed is None:
        listed = [n for n in definitions(mod.__file__) if not n.startswith("_")]
    return [n for n in listed if not isinstance(getattr(mod, n), ModuleType)]


def value_of(module: str, name: str) -> Any:
    """What the name stands for."""
    return getattr(importlib.import_module(module), name)


def home(module: str, name: str) -> str:
    """The module whose page describes a name: the nearest above its definition.

    Other modules may list it too; they point there.
    """
    value = value_of(module, name)
    defined = f"{getattr(value, '__module__', None)}."
    if not defined.startswith("diffreward."):
        return module  # a plain value does not know where it is from
    listing = [m for m in modules() if name in names(m)]
    same = [m for m in listing if getattr(sys.modules[m], name) is value]
    return max([m for m in same if defined.startswith(f"{m}.")] or same[:1], key=len)


def kind(module: str, name: str) -> str:
    """What a public name is: ``class``, ``exception``, ``function`` or ``data``."""
    value = value_of(module, name)
    # The aliases of jaxtyping are classes too, but not ours.
    if inspect.isclass(value) and value.__module__.startswith("diffreward"):
        return "exception" if issubclass(value, BaseException) else "class"
    return "function" if inspect.isroutine(inspect.unwrap(value)) else "data"


def docstring(module: str, name: str) -> str:
    """What is written about a public name; empty where nothing is.

    Of a class its own words only: neither a parent's nor those that Python makes for a
    record. Of a value the string that follows it where it is defined.
    """
    value = value_of(module, name)
    if kind(module, name) == "data":
        return next((text for _, text in assignments(module, name) if text), "")
    node = definition(inspect.unwrap(value))
    return (ast.get_docstring(node) or "") if node else ""


def source(module: str, name: str) -> str:
    """How a value is written where it is defined."""
    written = [node.value for node, _ in assignments(module, name) if node.value]
    return ast.unparse(written[0]) if written else ""


def assignments(module: str, name: str) -> list[tuple[ast.Assign | ast.AnnAssign, str]]:
    """Where modules below ``module`` define a value, and the string after it."""
    value, found = value_of(module, name), []
    for path, mod in sorted(sys.modules.items()):
        inside = path == module or path.startswith(f"{module}.")
        if inside and vars(mod).get(name) is value and mod.__file__:
            node, text = definitions(mod.__file__).get(name, (None, ""))
            if isinstance(node, ast.Assign | ast.AnnAssign):
                found.append((node, text))
    return found


def definition(value: object) -> ast.AST | None:
    """The node of a class or function in the file that defines it."""
    module = getattr(value, "__module__", None) or ""
    if not module.startswith("diffreward"):
        return None
    path = sys.modules[module].__file__
    node: ast.AST | None = None
    for part in value.__qualname__.split("."):
        node = definitions(path, node).get(part, (None, ""))[0]
        if node is None:
            return None
    return node


class Field(NamedTuple):
    """A field of a record or a network."""

    node: ast.AnnAssign
    scope: dict[str, Any]
    """The names of the module that defines it."""
    text: str


def fields(record: type) -> dict[str, Field]:
    """The fields of a class, those of its parents first."""
    found = {}
    for parent in reversed(record.__mro__):
        if body := definition(parent):
            scope = vars(sys.modules[parent.__module__])
            for name, (node, text) in definitions(scope["__file__"], body).items():
                if isinstance(node, ast.AnnAssign) and not name.startswith("_"):
                    found[name] = Field(node, scope, text)
    return found


@cache
def definitions(path: str, within: ast.AST | None = None) -> dict[str, tuple[ast.AST, str]]:
    """What a file or a class defines: the node of each name, and the string after it."""
    body = (within or parsed(path)).body
    found = {}
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found[node.name] = (node, "")
            continue
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        text = after.value if isinstance(after, ast.Expr) else None
        said = isinstance(text, ast.Constant) and isinstance(text.value, str)
        for target in targets:
            if isinstance(target, ast.Name):
                found[target.id] = (node, inspect.cleandoc(text.value) if said else "")
    return found


@cache
def parsed(path: str) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(Path(path).read_text())
