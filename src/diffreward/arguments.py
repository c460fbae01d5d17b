"""Arguments of the front door: each is taken as it was meant, or refused in one line."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffreward.diffusion import ContextLayout


def kind(value: object) -> str:
    """What a value is, for a message."""
    return f"a {type(value).__name__}"


def is_number(value: Any) -> bool:
    """Whether a value is a finite real number."""
    numbers = int | float | np.integer | np.floating
    return isinstance(value, numbers) and math.isfinite(value)


def at_least(name: str, value: Any, least: int) -> None:
    """Refuses all but whole numbers from ``least`` on.

    Raises:
        ValueError: naming the argument.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least:
        raise ValueError(f"{name} must be a whole number, at least {least}; got {value!r}")


def rows_of(
    name: str, samples: Any, shape: tuple[int, ...] | None = None
) -> Float[Array, "rows ..."]:
    """Samples as float32, one per row; of the given shape, if any.

    Raises:
        ValueError: naming the argument, for anything else.
    """
    try:
        rows = np.asarray(samples)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array of equal rows: {error}") from error
    if not jnp.issubdtype(rows.dtype, np.floating) and rows.dtype.kind not in "iub":
        raise ValueError(f"{name} must be real numbers, got {rows.dtype}")
    if shape is not None and rows.shape[1:] != shape:
        alone = f"; put a single sample in a batch, {name}[None]"
        raise ValueError(
            f"{name} must have shape (count, {', '.join(map(str, shape))}), got "
            f"{rows.shape}{alone if rows.shape == shape else ''}"
        )
    if rows.ndim < 2 or not rows.size:
        raise ValueError(
            f"{name} must have a row per sample, (count, *shape of one); got shape "
            f"{rows.shape}"
        )
    with np.errstate(over="ignore"):  # what becomes infinite is named below
        rows = rows.astype(np.float32)
    bad = ~np.isfinite(rows).reshape(len(rows), -1).all(1)
    if bad.any():
        first = int(np.argmax(bad))
        raise ValueError(f"sample {first} of {name} holds a number that is not finite")
    return jnp.asarray(rows)


def rows_of_context(
    name: str, values: Any, count: int | None = None
) -> Float[Array, "rows ..."]:
    """Values of one part of a context as float32, one per sample; also single numbers.

    Raises:
        ValueError: naming the part, for anything else.
    """
    rows = np.asarray(values)
    what = f"context {name!r}"
    flat = rows_of(what, rows[:, None] if rows.ndim == 1 else rows)
    if count is not None and len(flat) != count:
        raise ValueError(f"{what} has {len(flat)} rows for {count} samples")
    return flat[:, 0] if rows.ndim == 1 else flat


def samples_of(
    name: str,
    samples: Any,
    context: ContextLayout | None,
    shape: tuple[int, ...] | None = None,
) -> Float[Array, "rows ..."]:
    """Samples, with their contexts where there are any, as float32, one per row.

    Raises:
        ValueError: naming the argument, for anything else.
    """
    if context is None:
        return rows_of(name, samples, shape)
    if not (isinstance(samples, tuple) and len(samples) == 2):
        raise ValueError(
            f"{name} must come with contexts, as (samples, {{name: rows}}): {context.words}"
        )
    x, contexts = samples
    parts = {k: rows_of_context(k, v) for k, v in dict(contexts).items()}
    return context.pack(rows_of(name, x, context.shape), parts)


def flags_of(
    name: str, flags: Any, shape: tuple[int, ...] | None
) -> Bool[Array, "..."] | None:
    """One flag per entry of a sample, or None.

    Raises:
        ValueError: for flags of another shape or kind.
    """
    if flags is None:
        return None
    flags = np.asarray(flags)
    if flags.dtype != bool or (shape is not None and flags.shape != shape):
        wanted = "the shape of a sample" if shape is None else f"shape {shape}"
        raise ValueError(
            f"{name} must be True or False per entry, of {wanted}; got {flags.dtype} of "
            f"shape {flags.shape}"
        )
    return jnp.asarray(flags)


def check_noise_prediction(name: str, model: Any, shape: tuple[int, ...]) -> None:
    """Asks, without computing anything, whether a model takes and gives such samples.

    Raises:
        ValueError: with what the model says.
    """
    answer = shape_of_answer(name, model, shape)
    if answer != shape:
        raise ValueError(
            f"{name} answers a sample of shape {shape} with shape {answer}; a noise "
            "prediction has the shape of its sample"
        )


def shape_of_answer(name: str, function: Any, shape: tuple[int, ...]) -> Any:
    """Shape of a function's value at (x_t, t).

    Raises:
        ValueError: with what the function says.
    """
    x, t = jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct((), jnp.int32)
    try:
        return jax.eval_shape(function, x, t).shape
    except Exception as error:
        why = str(error).partition("\n")[0]
        raise ValueError(
            f"{name} cannot be asked about a sample of shape {shape}: {why}"
        ) from error
