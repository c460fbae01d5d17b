"""One-dimensional convolutions with one fast form for every derivative.

A convolution is bilinear, so its derivatives of any order are made of two maps: the
convolution itself and the gradient of its kernel. Both are JAX primitives here, and the
rules of each name only the other. ``jax.lax`` derives equal convolutions with permuted
dimensions instead; XLA's CPU compiler rewrites those into its fast form only outside
loops. Inside a ``lax.scan`` (a sampler, several training steps per dispatch) they fall
back to a scalar loop, and a U-Net trains some twenty times slower.

The primitives take inputs ``(members, batch, length, channels)`` and kernels ``(members,
taps, c_in, c_out)``. A ``vmap`` over inputs extends the batch, one over kernels (a
population of networks) the members: both are closed under it.
"""

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


def _conv(x: Array, kernel: Array) -> Array:
    return _conv_p.bind(x, kernel, taps=kernel.shape[1])


def _input_grad(g: Array, kernel: Array) -> Array:
    """Gradient of <g, conv(x, kernel)> by x: g convolved with the kernel transposed."""
    return _conv(g, jnp.flip(kernel, 1).swapaxes(2, 3))


def _kernel_grad(x: Array, g: Array, taps: int) -> Array:
    """Gradient of <g, conv(x, kernel)> by the kernel."""
    return _kernel_grad_p.bind(x, g, taps=taps)


# One member: XLA's convolution, or a matrix product over unfolded windows.


def _lax_conv(x: Array, kernel: Array, pad: int) -> Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1,), [(pad, pad)], dimension_numbers=("NWC", "WIO", "NWC")
    )


def _unfold(x: Array, taps: int) -> Array:
    """(batch, length, c) -> (batch, length, taps * c): what each output row reads."""
    length, pad = x.shape[1], taps // 2
    padded = jnp.pad(x, ((0, 0), (pad, pad), (0, 0)))
    return jnp.concatenate([padded[:, i : i + length] for i in range(taps)], axis=2)


def _conv_by_product(x: Array, kernel: Array) -> Array:
    return _unfold(x, kernel.shape[0]) @ kernel.reshape(-1, kernel.shape[2])


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


def _conv_on_cpu(x: Array, kernel: Array, *, taps: int) -> Array:
    if x.shape[2] < taps:  # a kernel longer than its input also takes the scalar loop
        return jax.vmap(_conv_by_product)(x, kernel)
    return _each(partial(_lax_conv, pad=taps // 2), x, jax.lax.optimization_barrier(kernel))


def _kernel_grad_on_cpu(x: Array, g: Array, *, taps: int) -> Array:
    # Channels play the batch, the batch the channels, and g the kernel.
    x, g = jax.lax.optimization_barrier((x.transpose(0, 3, 2, 1), g.swapaxes(1, 2)))
    return _each(partial(_lax_conv, pad=taps // 2), x, g).swapaxes(1, 2)


# All members, elsewhere: a population is one batched product.


def _conv_elsewhere(x: Array, kernel: Array, *, taps: int) -> Array:
    if x.shape[0] == 1:
        return _lax_conv(x[0], kernel[0], taps // 2)[None]
    return jax.vmap(_conv_by_product)(x, kernel)


def _kernel_grad_elsewhere(x: Array, g: Array, *, taps: int) -> Array:
    if x.shape[0] > 1:
        return jax.vmap(partial(_kernel_grad_by_product, taps=taps))(x, g)
    kernel = jax.ShapeDtypeStruct((taps, x.shape[3], g.shape[3]), x.dtype)
    conv = partial(_lax_conv, x[0], pad=taps // 2)
    return jax.linear_transpose(conv, kernel)(g[0])[0][None]


# The primitives and their rules.


def _batch_members(
    primitive: Primitive, args: Any, dims: Any, *, taps: int
) -> tuple[Array, int]:
    (size,) = {a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None}

    def merge(a: Array, dim: int | None) -> Array:
        if dim is None:
            a = jnp.broadcast_to(a[None], (size, *a.shape))
        else:
            a = jnp.moveaxis(a, dim, 0)
        return a.reshape(-1, *a.shape[2:])

    y = primitive.bind(*map(merge, args, dims), taps=taps)
    return y.reshape(size, -1, *y.shape[1:]), 0


def _batch_conv(args: Any, dims: Any, *, taps: int) -> tuple[Array, int]:
    x, kernel = args
    if dims[1] is not None:
        return _batch_members(_conv_p, args, dims, taps=taps)
    x = jnp.moveaxis(x, dims[0], 1)
    y = _conv(x.reshape(x.shape[0], -1, *x.shape[3:]), kernel)
    return y.reshape(*x.shape[:3], *y.shape[2:]), 1


def _primitive(
    name: str,
    out_shape: Callable[..., tuple[int, ...]],
    on_cpu: Callable[..., Array],
    elsewhere: Callable[..., Array],
) -> Primitive:
    primitive = Primitive(name)
    primitive.def_impl(jax.jit(primitive.bind, static_argnames="taps"))
    primitive.def_abstract_eval(
        lambda a, b, *, taps: a.update(shape=out_shape(a.shape, b.shape, taps))
    )
    for fn, platform in ((elsewhere, None), (on_cpu, "cpu")):
        rule = mlir.lower_fun(fn, multiple_results=False)
        mlir.register_lowering(primitive, rule, platform=platform)
    batching.primitive_batchers[primitive] = partial(_batch_members, primitive)
    return primitive


_conv_p = _primitive(
    "conv1d",
    lambda x, kernel, taps: (*x[:3], kernel[3]),
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
    lambda ct, x, kernel, *, taps: _input_grad(ct, kernel),
    lambda ct, x, kernel, *, taps: _kernel_grad(x, ct, taps),
)
ad.defbilinear(
    _kernel_grad_p,
    lambda ct, x, g, *, taps: _input_grad(g, ct),
    lambda ct, x, g, *, taps: _conv(x, ct),
)
