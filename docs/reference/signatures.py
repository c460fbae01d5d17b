"""Signatures as they are written: ``x_t: Sample``, not what jaxtyping makes of it."""

import ast
import copy
import inspect
from functools import cache
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from docs.reference import public


@cache
def places() -> dict[tuple[str, int], str]:
    """Full public name of every public object, by its short name and identity."""
    found = {}
    for module in public.modules():
        for name in public.names(module):
            value = public.value_of(module, name)
            found[name, id(value)] = f"{public.home(module, name)}.{name}"
    return found


class Linked(ast.NodeTransformer):
    """Public names in annotations become ``~diffreward.types.Sample``, which is a link."""

    def __init__(self, scope: dict[str, Any]):
        self.scope = scope

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """Replaces a name that the scope knows as a public object."""
        place = places().get((node.id, id(self.scope.get(node.id))))
        return ast.parse(f"~{place}", mode="eval").body if place else node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        """Drops the space by which ``" samples"`` is told from a forward reference."""
        return ast.Constant(node.value.strip()) if isinstance(node.value, str) else node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        """Drops the quotes of ``"Reward"``; leaves those of ``Float[Array, "a b"]``."""
        if isinstance(node.annotation, ast.Constant):
            node.annotation = ast.parse(node.annotation.value, mode="eval").body
        return self.generic_visit(node)


def rewrite(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, args: str, returns: str
) -> tuple[str, str | None] | None:
    """The signature of a function, method or record as its source has it."""
    if args is None:
        return None
    obj = inspect.unwrap(obj)
    node = public.definition(obj)
    if isinstance(node, ast.FunctionDef):
        returned = source(node.returns, obj.__globals__) if node.returns else None
        return f"({arguments(node, obj.__globals__)})", returned
    if isinstance(node, ast.ClassDef):
        made = vars(obj).get("__init__")
        init = public.definition(made) if made else None
        if isinstance(init, ast.FunctionDef):
            return f"({arguments(init, made.__globals__)})", None
        return f"({taken(obj)})", None
    return None


def arguments(node: ast.FunctionDef, scope: dict[str, Any]) -> str:
    """What a function takes, without ``self``; its defaults stay as they are."""
    found = copy.deepcopy(node.args)
    for group in (found.posonlyargs, found.args):
        group[:] = [Linked(scope).visit(a) for a in group if a.arg not in ("self", "cls")]
    found.kwonlyargs = [Linked(scope).visit(a) for a in found.kwonlyargs]
    return ast.unparse(found)


def taken(record: type) -> str:
    """The fields of a record or a network as the arguments they are."""
    found = []
    for name, field in public.fields(record).items():
        default = f" = {ast.unparse(field.node.value)}" if field.node.value else ""
        found.append(f"{name}: {source(field.node.annotation, field.scope)}{default}")
    # As Python wants it, those with a default come after those without.
    return ", ".join(sorted(found, key=lambda field: " = " in field))


def source(node: ast.expr, scope: dict[str, Any]) -> str:
    """An annotation as it is written, with links."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        node = ast.parse(node.value, mode="eval").body
    return ast.unparse(Linked(scope).visit(copy.deepcopy(node)))


def resolve(
    app: Sphinx, env: BuildEnvironment, node: nodes.Element, contnode: nodes.Element
) -> nodes.Element | None:
    """Finds ``diffreward.reward.pair.Pair`` where it is public: ``diffreward.reward``."""
    module, _, name = node.get("reftarget", "").rpartition(".")
    if node.get("refdomain") != "py":
        return None
    above = [m for m in public.modules() if f"{module}.".startswith(f"{m}.")]
    listing = [m for m in above if name in public.names(m)]
    if not listing:
        return None
    target = f"{public.home(max(listing, key=len), name)}.{name}"
    python, page = env.get_domain("py"), node["refdoc"]
    return python.resolve_xref(env, page, app.builder, "obj", target, node, contnode)
