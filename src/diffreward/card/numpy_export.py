"""A network as a NumPy program, so that a reward outlives the framework it came from.

The program is made from StableHLO, the form in which JAX hands a computation to the
compiler. JAX's own operations grow with every release; each of them is lowered to the few
of StableHLO, whose specification is versioned. One operation there becomes one line here,
and what is not known, be it an operation or an attribute of one, is refused by name.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from diffreward.card.numpy_helpers import HELPERS

__all__ = ["HELPERS", "NotExportable", "numpy_source"]

DTYPES = {
    "f16": "float16",
    "f32": "float32",
    "f64": "float64",
    "i1": "bool",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "ui8": "uint8",
    "ui16": "uint16",
    "ui32": "uint32",
    "ui64": "uint64",
}
STORED = ("float32", "int32", "bool", "float64")
"""Types of constants that the program's reader of weights knows."""

BINARY = {"add": "+", "subtract": "-", "multiply": "*", "and": "&", "or": "|", "xor": "^"}
COMPARE = {"GT": ">", "LT": "<", "GE": ">=", "LE": "<=", "EQ": "==", "NE": "!="}
CALLS = {
    "abs": "np.abs",
    "acos": "np.arccos",
    "acosh": "np.arccosh",
    "asin": "np.arcsin",
    "asinh": "np.arcsinh",
    "atan": "np.arctan",
    "atan2": "np.arctan2",
    "atanh": "np.arctanh",
    "cbrt": "np.cbrt",
    "ceil": "np.ceil",
    "cosh": "np.cosh",
    "cosine": "np.cos",
    "erf": "_erf",
    "erfc": "_erfc",
    "exponential": "np.exp",
    "exponential_minus_one": "np.expm1",
    "floor": "np.floor",
    "is_finite": "np.isfinite",
    "log": "np.log",
    "log_plus_one": "np.log1p",
    "logistic": "_logistic",
    "maximum": "np.maximum",
    "minimum": "np.minimum",
    "negate": "np.negative",
    "not": "np.invert",
    "power": "np.power",
    "remainder": "np.fmod",
    "round_nearest_even": "np.rint",
    "select": "np.where",
    "sign": "np.sign",
    "sine": "np.sin",
    "sinh": "np.sinh",
    "sqrt": "np.sqrt",
    "square": "np.square",
    "tan": "np.tan",
    "tanh": "np.tanh",
}
REDUCE = {
    "add": "np.add",
    "and": "np.bitwise_and",
    "maximum": "np.maximum",
    "minimum": "np.minimum",
    "multiply": "np.multiply",
    "or": "np.bitwise_or",
}
CALLEES = {"call": "callee", "composite": "decomposition"}

PRECISION = {"algorithm", "precision_config", "result_accuracy"}
"""Attributes that choose how exactly an operation is computed, not what."""


class NotExportable(ValueError):
    """A network uses an operation that has no NumPy form here."""


def numpy_source(
    apply: Callable[..., jax.Array], params: dict[str, np.ndarray], *inputs: Any
) -> tuple[str, dict[str, np.ndarray]]:
    """NumPy statements that compute ``apply(params, *inputs)``.

    Args:
        apply: function of a dict of arrays and further arrays.
        params: its first argument; entry ``k`` is read as ``W["k"]``.
        inputs: examples of the further arguments, named ``x0``, ``x1``, ... there.

    Returns:
        The body of a function as indented lines ending in ``return``, and the constants
        it reads as ``W["const/i"]``.

    Raises:
        NotExportable: for an operation, an attribute or a type without a NumPy form.
    """
    traced = jax.jit(apply, keep_unused=True).trace(params, *inputs)
    # Lowered for the CPU wherever this runs: the same program on every machine.
    module: Any = traced.lower(lowering_platforms=("cpu",)).compiler_ir("stablehlo")
    functions = {op.attributes["sym_name"].value: op for op in module.body.operations}
    # A dict is flattened in the order of its sorted keys.
    names = [f"W[{key!r}]" for key in sorted(params)]
    names += [f"x{i}" for i in range(len(inputs))]
    writer = _Writer(functions)
    [result] = writer.write(functions["main"].regions[0], names)
    writer.line(f"return {result}")
    return "".join(writer.lines), writer.constants


class _Writer:
    """Walks a lowered computation and collects one line per operation."""

    def __init__(self, functions: dict[str, Any]):
        self.functions = functions
        self.lines: list[str] = []
        self.constants: dict[str, np.ndarray] = {}
        self.names: dict[Any, str] = {}
        self.indent = "    "

    def line(self, text: str) -> None:
        self.lines.append(f"{self.indent}{text}\n")

    def write(self, region: Any, args: Sequence[str]) -> list[str]:
        """Writes the operations of a region; returns the names of its results."""
        [block] = region.blocks
        self.names.update(zip(block.arguments, args, strict=True))
        *body, last = block.operations
        for op in body:
            for value in op.results:
                _shape_and_dtype(value)  # refuses what NumPy has not
            names = self._operation(op, [self.names[v] for v in op.operands])
            self.names.update(zip(op.results, names, strict=True))
        return [self.names[v] for v in last.operands]

    def _operation(self, op: Any, names: list[str]) -> list[str]:
        kind = _kind(op)
        if kind in CALLEES:
            function = self.functions[op.attributes[CALLEES[kind]].value]
            return self.write(function.regions[0], names)
        if kind == "optimization_barrier":
            return names
        if kind == "while":
            return self._loop(op, names)
        if kind == "constant":
            return [self._constant(op)]
        result = f"v{len(self.lines)}"
        self.line(f"{result} = {_expression(op, names)}")
        return [result]

    def _loop(self, op: Any, names: list[str]) -> list[str]:
        state = [f"s{len(self.lines)}_{i}" for i in range(len(names))]
        assign = lambda values: self.line(f"{', '.join(state)}, = {', '.join(values)},")
        assign(names)
        self.line("while True:")
        self.indent += "    "
        [going] = self.write(op.regions[0], state)
        self.line(f"if not {going}: break")
        assign(self.write(op.regions[1], state))
        self.indent = self.indent[4:]
        return state

    def _constant(self, op: Any) -> str:
        shape, dtype = _shape_and_dtype(op.results[0])
        array = np.asarray(op.attributes["value"])
        if array.size and array.tobytes() == array.flat[0].tobytes() * array.size:
            value = array.flat[0].item()
            text = repr(value) if np.isfinite(value) else f"'{value}'"
            scalar = f"np.{dtype}({text})"
            return f"np.broadcast_to({scalar}, {shape})" if shape else scalar
        if dtype not in STORED:
            raise NotExportable(f"the network has a constant of type {dtype}")
        name = f"const/{len(self.constants)}"
        self.constants[name] = array
        return f"W[{name!r}]"


def _kind(op: Any) -> str:
    """Name of an operation without its dialect."""
    return op.operation.name.split(".", 1)[1]


def _shape_and_dtype(value: Any) -> tuple[tuple[int, ...], str]:
    """Of a type as it is written: ``tensor<3x4xf32>``."""
    match = re.fullmatch(r"tensor<((?:\d+x)*)(\w+)>", str(value.type))
    if match is None or match[2] not in DTYPES:
        raise NotExportable(f"the network computes with {value.type}, which NumPy has not")
    return tuple(map(int, match[1].split("x")[:-1])), DTYPES[match[2]]


def _expression(op: Any, names: list[str]) -> str:
    """The NumPy expression of one operation."""
    kind = _kind(op)
    given = _attributes(op)
    text = _form(kind, op, names, given)
    if text is None:
        detail = f" {given['call_target_name']}" if "call_target_name" in given else ""
        raise NotExportable(
            f"the network uses '{kind}{detail}', which has no NumPy form here"
        )
    if given:
        raise NotExportable(
            f"the network uses {kind!r} with {', '.join(sorted(given))}, which has no NumPy"
            " form here"
        )
    return text


def _attributes(op: Any) -> dict[str, Any]:
    """What is computed; names with a dot are notes for a compiler."""
    names = (a if isinstance(a, str) else a.name for a in op.attributes)
    said = (name for name in names if "." not in name and name not in PRECISION)
    return {name: op.attributes[name] for name in said}


def _form(kind: str, op: Any, names: list[str], given: dict[str, Any]) -> str | None:
    """Expression of an operation, None if unknown; takes what it has read from given."""
    first, args = names[0] if names else "", ", ".join(names)
    shape, dtype = _shape_and_dtype(op.results[0])
    whole = not dtype.startswith("float")
    if kind in BINARY:
        return f"{names[0]} {BINARY[kind]} {names[1]}"
    if kind == "divide":
        quotient = f"{names[0]} / {names[1]}"
        return f"np.trunc({quotient}).astype(np.{dtype})" if whole else quotient
    if kind == "compare":
        order = (
            str(given.pop("compare_type", "")) != "#stablehlo<comparison_type TOTALORDER>"
        )
        sign = str(given.pop("comparison_direction")).split()[-1].rstrip(">")
        return f"{names[0]} {COMPARE[sign]} {names[1]}" if order else None
    if kind in CALLS:
        return f"{CALLS[kind]}({args})"
    if kind == "rsqrt":
        return f"1 / np.sqrt({first})"
    if kind == "clamp":
        return f"np.clip({names[1]}, {names[0]}, {names[2]})"
    if kind == "convert":
        return f"np.asarray({first}).astype(np.{dtype})"
    if kind == "broadcast_in_dim":
        return f"_broadcast({first}, {shape}, {_ints(given.pop('broadcast_dimensions'))})"
    if kind == "reshape":
        return f"np.reshape({first}, {shape})"
    if kind == "transpose":
        return f"np.transpose({first}, {_ints(given.pop('permutation'))})"
    if kind == "reverse":
        return f"np.flip({first}, {_ints(given.pop('dimensions'))})"
    if kind == "concatenate":
        return f"np.concatenate([{args}], {given.pop('dimension').value})"
    if kind == "slice":
        parts = ("start_indices", "limit_indices", "strides")
        cuts = zip(*(given.pop(part) for part in parts), strict=True)
        return f"{first}[{', '.join(f'{a}:{b}:{c}' for a, b, c in cuts) or '()'}]"
    if kind == "dynamic_slice":
        sizes = _ints(given.pop("slice_sizes"))
        return f"{first}[_window({first}, [{', '.join(names[1:])}], {sizes})]"
    if kind == "dynamic_update_slice":
        return f"_update({names[0]}, {names[1]}, [{', '.join(names[2:])}])"
    if kind == "pad":
        parts = ("edge_padding_low", "edge_padding_high", "interior_padding")
        return f"_pad({args}, {', '.join(str(_ints(given.pop(part))) for part in parts)})"
    if kind == "iota":
        dim = given.pop("iota_dimension").value
        return f"_broadcast(np.arange({shape[dim]}, dtype=np.{dtype}), {shape}, ({dim},))"
    if kind == "reduce":
        return _reduce(op, names, _ints(given.pop("dimensions")), dtype)
    if kind == "dot_general":
        said = re.findall(r"(\w+) = \[([\d, ]*)\]", str(given.pop("dot_dimension_numbers")))
        dims = {key: tuple(map(int, text.split(","))) for key, text in said}
        contract, batch = (
            tuple(dims.get(f"{side}_{role}_dimensions", ()) for side in ("lhs", "rhs"))
            for role in ("contracting", "batching")
        )
        return f"_dot({args}, {contract}, {batch})"
    if kind == "convolution":
        return _convolution(names, given)
    return None


def _ints(values: Iterable[Any]) -> tuple[int, ...]:
    return tuple(int(v) for v in values)


def _reduce(op: Any, names: list[str], axes: tuple[int, ...], dtype: str) -> str | None:
    """A fold by one operation over the two values; anything else is None."""
    [block] = op.regions[0].blocks
    inner, *rest = block.operations
    if len(names) != 2 or len(rest) != 1 or _kind(inner) not in REDUCE:
        return None
    if list(inner.operands) != list(block.arguments):
        return None
    call = REDUCE[_kind(inner)]
    return f"{call}.reduce({names[0]}, {axes}, np.{dtype}, initial={names[1]})"


def _convolution(names: list[str], given: dict[str, Any]) -> str | None:
    """A convolution of any number of dimensions, in the layouts of its attributes."""
    # As in "#stablehlo.conv<[b, 0, f]x[0, i, o]->[b, 0, f]>".
    said = re.findall(r"\[([^\]]*)\]", str(given.pop("dimension_numbers")))
    x, kernel, out = (text.split(", ") for text in said)
    space = [str(i) for i in range(len(x) - 2)]
    ones = (1,) * len(space)
    option = lambda name, default: _ints(given.pop(name, default))
    strides, spread = option("window_strides", ones), option("lhs_dilation", ones)
    dilation = option("rhs_dilation", ones)
    padding = np.asarray(given.pop("padding", [(0, 0)] * len(space))).tolist()
    groups = given.pop("feature_group_count").value
    if any(option("window_reversal", ())) or given.pop("batch_group_count").value != 1:
        return None
    move = lambda name, old, new: f"np.transpose({name}, {_ints(map(old.index, new))})"
    x = move(names[0], x, ["b", *space, "f"])
    kernel = move(names[1], kernel, [*space, "i", "o"])
    result = f"_conv({x}, {kernel}, {strides}, {padding}, {spread}, {dilation}, {groups})"
    return move(result, ["b", *space, "f"], out)
