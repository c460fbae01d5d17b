"""One-dimensional convolutions with one fast form for every derivative.

A convolution is bilinear, so its derivatives of any order are made of two maps: the
convolution (or its transpose) and the gradient of its kernel. Both are JAX primitives
here, and the rules of each name only the other. ``jax.lax`` derives equal convolutions
with permuted dimensions instead; XLA's CPU compiler rewrites those into its fast form
only outside loops. Inside a ``lax.scan`` (a sampler, several training steps per dispatch)
they fall back to a scalar loop, and a U-Net trains some twenty times slower.

The primitives take inputs ``(members, batch, length, channels)`` and kernels ``(members,
taps, c_in, c_out)``. A ``vmap`` over inputs extends the batch, one over kernels (a
population of networks) the members: both are closed under it.
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float


def conv1d(
    x: Float[Array, "length c_in"], kernel: Float[Array, "taps c_in c_out"]
) -> Float[Array, "length c_out"]:
    """Cross-correlation with zero padding that keeps the length.

    Raises:
        ValueError: if the number of taps is even.
    """
    if kernel.shape[0] % 2 == 0:
        raise ValueError(f"conv1d keeps the length for odd taps, got {kernel.shape[0]}")
    return _conv(x[None, None], kernel[None])[0, 0]


def conv1d_down(
    x: Float[Array, "length c_in"], kernel: Float[Array, "3 c_in c_out"]
) -> Float[Array, "half c_out"]:
    """Stride-2 convolution, 3 taps, padding 1: L -> ceil(L/2).

    Output m reads x[2m-1], x[2m], x[2m+1]: one product over even and odd rows. A strided
    ``lax.conv`` would have a dilated one as its gradient, which is slow on CPU.
    """
    _, c_in, c_out = kernel.shape
    pairs = jnp.pad(x, ((0, x.shape[0] % 2), (0, 0))).reshape(-1, 2, c_in)
    even, odd = pairs[:, 0], pairs[:, 1]
    unfolded = jnp.concatenate([_shift(odd, 1), even, odd], axis=1)
    return unfolded @ kernel.reshape(3 * c_in, c_out)


def conv1d_up(
    x: Float[Array, "length c_in"], kernel: Float[Array, "4 c_in c_out"]
) -> Float[Array, "double c_out"]:
    """Transposed stride-2 convolution, 4 taps, padding 1: L -> 2L.

    The taps are PyTorch's: output 2m is x[m] k1 + x[m-1] k3, and output 2m+1 is
    x[m] k2 + x[m+1] k0.
    """
    even = jnp.concatenate([x, _shift(x, 1)], axis=1)
    odd = jnp.concatenate([x, _shift(x, -1)], axis=1)
    even = even @ jnp.concatenate([kernel[1], kernel[3]])
    odd = odd @ jnp.concatenate([kernel[2], kernel[0]])
    return jnp.stack([even, odd], axis=1).reshape(-1, kernel.shape[2])


def _shift(x: Array, by: int) -> Array:
    """Rows moved ``by`` places down (up if negative), zeros moved in."""
    if by > 0:
        return jnp.pad(x[:-by], ((by, 0), (0, 0)))
    return jnp.pad(x[-by:], ((0, -by), (0, 0)))


def _conv(x: Array, kernel: Array, transposed: bool = False) -> Array:
    """Convolution, or its transpose: the gradient of <x, conv(y, kernel)> by y."""
    return _conv_p.bind(x, kernel, taps=kernel.shape[1], transposed=transposed)


def _kernel_grad(x: Array, g: Array, taps: int) -> Array:
    """Gradient of <g, conv(x, kernel)> by the kernel."""
    return _kernel_grad_p.bind(x, g, taps=taps)


# One member: XLA's convolution, or a matrix product over unfolded windows.


def _lax_conv(x: Array, kernel: Array, pad: int) -> Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1,), [(pad, pad)], dimension_numbers=("NWC", "WIO", "NWC")
    )


def _transpose(kernel: Array) -> Array:
    """The kernel whose convolution is the transpose of the convolution by this one."""
    return jnp.flip(kernel, 1).swapaxes(2, 3)


def _unfold(x: Array, taps: int) -> Array:
    """(batch, length, c) -> (batch, length, taps * c): what each output row reads."""
    length, pad = x.shape[1], taps // 2
    padded = jnp.pad(x, ((0, 0), (pad, pad), (0, 0)))
    return jnp.concatenate([padded[:, i : i + length] for i in range(taps)], axis=2)


def _conv_by_product(x: Array, kernel: Array, *, transposed: bool) -> Array:
    taps, c_in, c_out = kernel.shape
    flat = kernel.reshape(-1, c_out)
    if not transposed:
        return _unfold(x, taps) @ flat
    # The kernel is used as it lies: on CPU, copying its transpose can cost more than the
    # product. What tap i has produced belongs i - taps // 2 places further.
    parts = jnp.einsum("blo,ko->blk", x, flat).reshape(*x.shape[:2], taps, c_in)
    pad, length = taps // 2, x.shape[1]
    padded = jnp.pad(parts, ((0, 0), (pad, pad), (0, 0), (0, 0)))
    shifted = (padded[:, taps - 1 - i :][:, :length, i] for i in range(taps))
    return functools.reduce(jnp.add, shifted)


def _kernel_grad_by_product(x: Array, g: Array, *, taps: int) -> Array:
    product = jnp.einsum("blk,blo->ko", _unfold(x, taps), g)
    return product.reshape(taps, x.shape[2], g.shape[2])


# All members, on CPU: one after the other, as each is work enough for every core. The
# barriers make a transposition real, which XLA would otherwise fold into the dimension
# numbers of the convolution.


def _each(fn: Callable[..., Array], *args: Array) -> Array:
    if args[0].shape[0] == 1:
        return fn(*(a[0] for a in args))[None]
    return jax.lax.map(lambda member: fn(*member), args)


def _all(fn: Callable[..., Array], *args: Array) -> Array:
    # A batched product of one would be transposed by XLA.
    return _each(fn, *args) if args[0].shape[0] == 1 else jax.vmap(fn)(*args)


def _conv_on_cpu(x: Array, kernel: Array, *, taps: int, transposed: bool) -> Array:
    if x.shape[2] < taps:  # a kernel longer than its input also takes the scalar loop
        return _all(partial(_conv_by_product, transposed=transposed), x, kernel)
    if transposed:
        kernel = jax.lax.optimization_barrier(_transpose(kernel))
    return _each(partial(_lax_conv, pad=taps // 2), x, kernel)


_LARGE = 2**20
"""Numbers in an input from which a transposition is worth keeping apart."""


def _kernel_grad_on_cpu(x: Array, g: Array, *, taps: int) -> Array:
    def one(x: Array, g: Array) -> Array:
        # Channels play the batch, the batch the channels, and g the kernel.
        x, g = jax.lax.optimization_barrier((x.transpose(2, 1, 0), g.swapaxes(0, 1)))
        return _lax_conv(x, g, taps // 2)

    def halves(x: Array, g: Array) -> Array:
        # XLA fuses what computes x into its transposition and then reads everything in
        # strides. What enters a loop is written first.
        half = x.shape[0] // 2
        cut = lambda a: a.reshape(2, half, *a.shape[1:])
        add = lambda total, part: (total + one(*part), None)
        zero = jnp.zeros((x.shape[2], taps, g.shape[2]), x.dtype)
        return jax.lax.scan(add, zero, (cut(x), cut(g)))[0]

    large = x.shape[1] % 2 == 0 and x[0].size >= _LARGE
    return _each(halves if large else one, x, g).swapaxes(1, 2)


# All members, elsewhere: a population is one batched product.


def _conv_elsewhere(x: Array, kernel: Array, *, taps: int, transposed: bool) -> Array:
    if transposed:
        kernel = _transpose(kernel)
    if x.shape[0] == 1:
        return _lax_conv(x[0], kernel[0], taps // 2)[None]
    return jax.vmap(partial(_conv_by_product, transposed=False))(x, kernel)


def _kernel_grad_elsewhere(x: Array, g: Array, *, taps: int) -> Array:
    if x.shape[0] > 1:
        return jax.vmap(partial(_kernel_grad_by_product, taps=taps))(x, g)
    kernel = jax.ShapeDtypeStruct((taps, x.shape[3], g.shape[3]), x.dtype)
    conv = partial(_lax_conv, x[0], pad=taps // 2)
    return jax.linear_transpose(conv, kernel)(g[0])[0][None]


# The primitives and their rules.


def _batch_members(
    primitive: Primitive, args: Any, dims: Any, **static: Any
) -> tuple[Array, int]:
    (size,) = {a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None}

    def merge(a: Array, dim: int | None) -> Array:
        if dim is None:
            a = jnp.broadcast_to(a[None], (size, *a.shape))
        else:
            a = jnp.moveaxis(a, dim, 0)
        return a.reshape(-1, *a.shape[2:])

    y = primitive.bind(*map(merge, args, dims), **static)
    return y.reshape(size, -1, *y.shape[1:]), 0


def _batch_conv(args: Any, dims: Any, **static: Any) -> tuple[Array, int]:
    x, kernel = args
    if dims[1] is not None:
        return _batch_members(_conv_p, args, dims, **static)
    x = jnp.moveaxis(x, dims[0], 1)
    y = _conv_p.bind(x.reshape(x.shape[0], -1, *x.shape[3:]), kernel, **static)
    return y.reshape(*x.shape[:3], *y.shape[2:]), 1


def _primitive(
    name: str,
    out_shape: Callable[..., tuple[int, ...]],
    on_cpu: Callable[..., Array],
    elsewhere: Callable[..., Array],
) -> Primitive:
    primitive = Primitive(name)
    primitive.def_impl(jax.jit(primitive.bind, static_argnames=("taps", "transposed")))
    primitive.def_abstract_eval(
        lambda a, b, **static: a.update(shape=out_shape(a.shape, b.shape, **static))
    )
    for fn, platform in ((elsewhere, None), (on_cpu, "cpu")):
        rule = mlir.lower_fun(fn, multiple_results=False)
        mlir.register_lowering(primitive, rule, platform=platform)
    batching.primitive_batchers[primitive] = partial(_batch_members, primitive)
    return primitive


_conv_p = _primitive(
    "conv1d",
    lambda x, kernel, taps, transposed: (*x[:3], kernel[2 if transposed else 3]),
    _conv_on_cpu,
    _conv_elsewhere,
)
_kernel_grad_p = _primitive(
    "conv1d_kernel_grad",
    lambda x, g, taps: (x[0], taps, x[3], g[3]),
    _kernel_grad_on_cpu,
    _kernel_grad_elsewhere,
)
batching.primitive_batchers[_conv_p] = _batch_conv
# The transpose with respect to each argument, the other one being held.
ad.defbilinear(
    _conv_p,
    lambda ct, x, kernel, *, taps, transposed: _conv(ct, kernel, not transposed),
    lambda ct, x, kernel, *, taps, transposed: _kernel_grad(
        *((ct, x) if transposed else (x, ct)), taps
    ),
)
ad.defbilinear(
    _kernel_grad_p,
    lambda ct, x, g, *, taps: _conv(g, ct, transposed=True),
    lambda ct, x, g, *, taps: _conv(x, ct),
)
