"""One table per network and dialect: which foreign tensor is which of our parameters.

PyTorch keeps convolutions as (out, in, taps), transposed ones as (in, out, taps), and
linear maps as (out, in); ours are (taps, in, out) and (in, out). Both directions use the
same table, so what is written is what is read.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from diffreward.files import FileValueError
from diffreward.interop.tensors import finite

KINDS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "conv": ((2, 1, 0), (2, 1, 0)),
    "up": ((2, 0, 1), (1, 2, 0)),
    "linear": ((1, 0), (1, 0)),
    "point": ((1, 0), (1, 0)),
    "vector": ((0,), (0,)),
    "channel": ((0,), (0,)),
}
"""Axes of a kernel on the way in and out. ``point`` is a convolution of one tap, which is
a linear map here; ``channel`` a vector stored as (1, channels, 1)."""


class Entry(NamedTuple):
    """A parameter of ours, the foreign tensor, and how its axes are laid out."""

    ours: str
    theirs: str
    kind: str


class Dialect(NamedTuple):
    """Names of one library for the parts of a temporal U-Net or value function."""

    time: tuple[str, str]
    conv: Callable[[str, int], str]
    """Convolution 0 or 1 of a residual block."""
    norm: Callable[[str, int], str]
    block_time: str
    skip: str
    parts: Mapping[str, str]
    """Names of submodules by ours, such as ``down_0_res_1``."""
    final: tuple[str, str, str]
    """Last convolution, its normalisation, and the head."""


def unet_table(
    dialect: Dialect, widths: list[int], dim_in: int, attention: bool
) -> list[Entry]:
    """Every parameter of :class:`~diffreward.networks.TemporalUnet`."""
    entries = list(_time(dialect))
    last = len(widths) - 1

    def level(name: str, c_in: int, c_out: int) -> Iterator[Entry]:
        yield from _residual(dialect, f"{name}_res_0", c_in != c_out)
        yield from _residual(dialect, f"{name}_res_1", False)
        if attention:
            yield from _attention(dialect, f"{name}_attn")

    for i, (c_in, c_out) in enumerate(zip([dim_in, *widths], widths, strict=False)):
        entries += level(f"down_{i}", c_in, c_out)
        if i < last:
            entries += _affine(f"down_{i}_resample", dialect, "conv")
    entries += level("mid", widths[-1], widths[-1])
    for i in range(last, 0, -1):
        entries += level(f"up_{i}", 2 * widths[i], widths[i - 1])
        entries += _affine(f"up_{i}_resample", dialect, "up")
    conv, norm, head = dialect.final
    entries += _pair("final/conv", conv, "conv")
    entries += _norm("final/norm", norm)
    entries += _pair("head", head, "point")
    return entries


def value_table(dialect: Dialect, widths: list[int], dim_in: int) -> list[Entry]:
    """Every parameter of :class:`~diffreward.networks.ValueFunction`."""
    entries = list(_time(dialect))
    c_in = dim_in
    for i, width in enumerate(widths):
        entries += _residual(dialect, f"res_{i}_0", c_in != width)
        entries += _residual(dialect, f"res_{i}_1", False)
        entries += _affine(f"down_{i}", dialect, "conv")
        c_in = width
    for i, width in enumerate((widths[-1] // 2, widths[-1] // 4)):
        entries += _residual(dialect, f"mid_{i}", c_in != width)
        entries += _affine(f"mid_down_{i}", dialect, "conv")
        c_in = width
    for name in ("hidden", "head"):
        entries += _affine(name, dialect, "linear")
    return entries


def to_params(
    table: list[Entry], tensors: Mapping[str, np.ndarray], where: str
) -> dict[str, Any]:
    """Our parameters from foreign tensors.

    Raises:
        ValueError: if a tensor is missing or left over, has no fitting rank, or holds
            anything but numbers.
    """
    wanted = {e.theirs for e in table}
    if missing := [e.theirs for e in table if e.theirs not in tensors]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise FileValueError(f"{where} lacks the tensor {missing[0]}{more}")
    if extra := sorted(tensors.keys() - wanted):
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        raise FileValueError(f"{where} has the unexpected tensor {extra[0]}{more}")
    finite(tensors.items(), where)
    flat = {}
    for entry in table:
        value = np.asarray(tensors[entry.theirs])
        if entry.kind == "point" and value.ndim == 3 and value.shape[2] == 1:
            value = value[:, :, 0]
        if entry.kind == "channel":
            value = value.reshape(-1)
        axes = KINDS[entry.kind][0]
        if value.ndim != len(axes):
            raise FileValueError(f"{where}: {entry.theirs} has shape {value.shape}")
        flat[entry.ours] = jnp.asarray(value.transpose(axes), jnp.float32)
    return {"params": unflatten_dict(flat, sep="/")}


def from_params(table: list[Entry], params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Foreign tensors from our parameters."""
    flat = flatten_dict(params["params"], sep="/")
    tensors = {}
    for entry in table:
        value = np.asarray(flat.pop(entry.ours), np.float32)
        value = value.transpose(KINDS[entry.kind][1])
        if entry.kind == "point":
            value = value[:, :, None]
        if entry.kind == "channel":
            value = value[None, :, None]
        tensors[entry.theirs] = np.ascontiguousarray(value)
    if flat:
        raise FileValueError(f"no tensor of theirs holds {sorted(flat)[0]}")
    return tensors


def _pair(ours: str, theirs: str, kind: str, bias: bool = True) -> Iterator[Entry]:
    yield Entry(f"{ours}/kernel", f"{theirs}.weight", kind)
    if bias:
        yield Entry(f"{ours}/bias", f"{theirs}.bias", "vector")


def _norm(ours: str, theirs: str) -> Iterator[Entry]:
    yield Entry(f"{ours}/scale", f"{theirs}.weight", "vector")
    yield Entry(f"{ours}/shift", f"{theirs}.bias", "vector")


def _affine(name: str, dialect: Dialect, kind: str) -> Iterator[Entry]:
    yield from _pair(name, dialect.parts[name], kind)


def _time(dialect: Dialect) -> Iterator[Entry]:
    for ours, theirs in zip(("time/hidden", "time/out"), dialect.time, strict=True):
        yield from _pair(ours, theirs, "linear")


def _residual(dialect: Dialect, name: str, skip: bool) -> Iterator[Entry]:
    theirs = dialect.parts[name]
    for i in (0, 1):
        yield from _pair(f"{name}/block_{i}/conv", dialect.conv(theirs, i), "conv")
        yield from _norm(f"{name}/block_{i}/norm", dialect.norm(theirs, i))
    yield from _pair(f"{name}/time", f"{theirs}.{dialect.block_time}", "linear")
    if skip:
        yield from _pair(f"{name}/skip", f"{theirs}.{dialect.skip}", "point")


def _attention(dialect: Dialect, name: str) -> Iterator[Entry]:
    """Residual(PreNorm(LinearAttention)): its own norm keeps g and b as (1, C, 1)."""
    theirs = dialect.parts[name]
    yield Entry(f"{name}/norm/scale", f"{theirs}.fn.norm.g", "channel")
    yield Entry(f"{name}/norm/bias", f"{theirs}.fn.norm.b", "channel")
    yield from _pair(f"{name}/qkv", f"{theirs}.fn.fn.to_qkv", "point", bias=False)
    yield from _pair(f"{name}/out", f"{theirs}.fn.fn.to_out", "point")
