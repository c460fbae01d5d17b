"""A network as a NumPy program, so that a reward outlives the framework it came from.

The network is traced once; every operation of the trace becomes one line of NumPy. Only
what our networks are made of is known; anything else is refused by name.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

BINARY = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
CALLS = {
    "abs": "np.abs",
    "cos": "np.cos",
    "exp": "np.exp",
    "expm1": "np.expm1",
    "log": "np.log",
    "log1p": "np.log1p",
    "logistic": "_logistic",
    "max": "np.maximum",
    "min": "np.minimum",
    "neg": "np.negative",
    "sign": "np.sign",
    "sin": "np.sin",
    "sqrt": "np.sqrt",
    "square": "np.square",
    "stop_gradient": "",
    "tanh": "np.tanh",
}
COMPARE = {"gt": ">", "lt": "<", "ge": ">=", "le": "<=", "eq": "=="}
INLINE = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call")

HELPERS = """

def _logistic(x):
    return 1 / (1 + np.exp(-x))


def _broadcast(x, shape, dims):
    lifted = [1] * len(shape)
    for size, dim in zip(np.shape(x), dims):
        lifted[dim] = size
    return np.broadcast_to(np.reshape(x, lifted), shape)


def _dot(a, b, contract, batch):
    if not batch[0]:
        return np.tensordot(a, b, contract)
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    left = [next(letters) for _ in range(a.ndim)]
    right = [next(letters) for _ in range(b.ndim)]
    for i, j in [*zip(*contract), *zip(*batch)]:
        right[j] = left[i]
    free = lambda names, used: [c for i, c in enumerate(names) if i not in used]
    out = [left[i] for i in batch[0]]
    out += free(left, (*contract[0], *batch[0])) + free(right, (*contract[1], *batch[1]))
    spec = "".join(left) + "," + "".join(right) + "->" + "".join(out)
    return np.einsum(spec, a, b, optimize=True)


def _conv1d(x, kernel, transposed):
    taps, half = kernel.shape[1], kernel.shape[1] // 2
    if transposed:
        kernel = kernel[:, ::-1].swapaxes(2, 3)
    padded = np.pad(x, ((0, 0), (0, 0), (half, half), (0, 0)))
    rows = [padded[:, :, k : k + x.shape[2]] for k in range(taps)]
    return sum(np.matmul(r, kernel[:, None, k]) for k, r in enumerate(rows))
"""


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
        NotExportable: for an operation without a NumPy form.
    """
    closed = jax.make_jaxpr(apply)(params, *inputs)
    # A dict is flattened in the order of its sorted keys.
    names = [f"W[{key!r}]" for key in sorted(params)]
    names += [f"x{i}" for i in range(len(inputs))]
    constants: dict[str, np.ndarray] = {}
    writer = _Writer(constants)
    [result] = writer.write(closed.jaxpr, names, closed.consts)
    lines = [*writer.lines, f"return {result}"]
    return "".join(f"    {line}\n" for line in lines), constants


class _Writer:
    """Walks a trace and collects one line per operation."""

    def __init__(self, constants: dict[str, np.ndarray]):
        self.lines: list[str] = []
        self.constants = constants

    def write(self, jaxpr: Any, args: Sequence[str], consts: Sequence[Any]) -> list[str]:
        """Writes the operations of a trace; returns the names of its results."""
        env = dict(zip(jaxpr.invars, args, strict=True))
        for var, value in zip(jaxpr.constvars, consts, strict=True):
            env[var] = self._constant(value)

        def read(atom: Any) -> str:
            if hasattr(atom, "val"):
                return self._constant(atom.val)
            return env[atom]

        for eqn in jaxpr.eqns:
            names = [read(a) for a in eqn.invars]
            if eqn.primitive.name in INLINE:
                inner = eqn.params.get("jaxpr") or eqn.params.get("call_jaxpr")
                outs = self.write(getattr(inner, "jaxpr", inner), names, _consts(inner))
            else:
                outs = [f"v{len(self.lines)}_{i}" for i in range(len(eqn.outvars))]
                self.lines.append(f"{', '.join(outs)} = {_expression(eqn, names)}")
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(a) for a in jaxpr.outvars]

    def _constant(self, value: Any) -> str:
        array = np.asarray(value)
        if array.ndim == 0:
            value = array.item()
            text = repr(value) if np.isfinite(value) else f"'{value}'"
            return f"np.{array.dtype.name}({text})"
        name = f"const/{len(self.constants)}"
        self.constants[name] = array
        return f"W[{name!r}]"


def _consts(inner: Any) -> Sequence[Any]:
    return getattr(inner, "consts", ())


def _expression(eqn: Any, names: list[str]) -> str:
    """The NumPy expression of one operation."""
    op, p = eqn.primitive.name, eqn.params
    first, shape = names[0] if names else "", tuple(eqn.outvars[0].aval.shape)
    if op in BINARY:
        return f"{names[0]} {BINARY[op]} {names[1]}"
    if op in COMPARE:
        return f"{names[0]} {COMPARE[op]} {names[1]}"
    if op in CALLS:
        return f"{CALLS[op]}({', '.join(names)})"
    if op == "rsqrt":
        return f"1 / np.sqrt({first})"
    if op == "integer_pow":
        return f"{first} ** {p['y']}"
    if op == "convert_element_type":
        return f"np.asarray({first}).astype(np.{np.dtype(p['new_dtype']).name})"
    if op == "broadcast_in_dim":
        return f"_broadcast({first}, {shape}, {tuple(p['broadcast_dimensions'])})"
    if op in ("reshape", "squeeze"):
        return f"np.reshape({first}, {shape})"
    if op == "transpose":
        return f"np.transpose({first}, {tuple(p['permutation'])})"
    if op == "concatenate":
        return f"np.concatenate([{', '.join(names)}], {p['dimension']})"
    if op == "split":
        cuts = np.cumsum(p["sizes"])[:-1].tolist()
        return f"np.split({first}, {cuts}, {p['axis']})"
    if op == "stack":
        return f"np.stack([{', '.join(names)}], {p.get('axis', p.get('dimension'))})"
    if op == "slice":
        strides = p["strides"] or (1,) * len(shape)
        cuts = zip(p["start_indices"], p["limit_indices"], strides, strict=True)
        return f"{first}[{', '.join(f'{a}:{b}:{c}' for a, b, c in cuts)}]"
    if op == "pad":
        widths = [(lo, hi) for lo, hi, inner in p["padding_config"] if not inner]
        if len(widths) == len(shape) and min(map(min, widths)) >= 0:
            return f"np.pad({first}, {widths}, constant_values={names[1]})"
    if op == "iota":
        dtype, dim = np.dtype(p["dtype"]).name, p["dimension"]
        return f"_broadcast(np.arange({shape[dim]}, dtype=np.{dtype}), {shape}, ({dim},))"
    if op in ("reduce_sum", "reduce_max"):
        call = {"reduce_sum": "np.sum", "reduce_max": "np.max"}[op]
        return f"{call}({first}, axis={tuple(p['axes'])})"
    if op == "dot_general":
        contract, batch = (tuple(map(tuple, d)) for d in p["dimension_numbers"])
        return f"_dot({names[0]}, {names[1]}, {contract}, {batch})"
    if op == "select_n":
        return f"np.where({first}, {names[2]}, {names[1]})"
    if op == "conv1d":
        return f"_conv1d({names[0]}, {names[1]}, {p['transposed']})"
    raise NotExportable(f"the network uses {op!r}, which has no NumPy form here")
