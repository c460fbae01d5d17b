"""Contexts: what a conditional model is told beside its sample.

An observation, a goal, a label (as a one-hot vector) or an embedding travels with its
sample in one vector, as entries that are pinned. So what is written for pinned entries
(losses, extraction, measures, samplers, steering, cards) serves conditional models as it
is, and splits of the data keep every sample with its own context.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffreward.data.normaliser import Normaliser, normalise, unnormalise
from diffreward.types import AnyArray, Mask, Sample

Context = Mapping[str, Any]
"""Arrays by name: of one sample, or a row per sample."""


class Part(NamedTuple):
    """One array of a context."""

    name: str
    shape: tuple[int, ...]
    normaliser: Normaliser | None = None
    """Coordinates in which a reward network sees it; models see it as it is."""


class ContextLayout(NamedTuple):
    """Where a sample and its context stand in the vector of both."""

    shape: tuple[int, ...]
    """Of a sample alone."""
    parts: tuple[Part, ...]

    @property
    def words(self) -> str:
        """Names and shapes of the parts."""
        return ", ".join(f"{part.name} {part.shape}" for part in self.parts)

    @property
    def size(self) -> int:
        """Numbers in the vector."""
        return sum(math.prod(s) for s in (self.shape, *(p.shape for p in self.parts)))

    def pinned(self, own: Mask | None = None) -> Bool[Array, " size"]:
        """The entries of the context, and those of the sample that are conditioned."""
        free = math.prod(self.shape)
        head = np.zeros(free, bool) if own is None else np.ravel(np.asarray(own))
        return jnp.asarray(np.append(head, np.ones(self.size - free, bool)))

    def own_pinned(self, pinned: Mask | None) -> Bool[Array, "..."] | None:
        """Conditioned entries of the sample alone, or None; inverse of :meth:`pinned`."""
        if pinned is None:
            return None
        own = np.asarray(pinned)[: math.prod(self.shape)]  # known also while JAX traces
        return jnp.asarray(own.reshape(self.shape)) if own.any() else None

    def pack(self, x: AnyArray, context: Context) -> Float[Array, "... size"]:
        """The vectors of samples and their contexts, both as they are.

        Args:
            x: one sample, or a row per sample.
            context: likewise.

        Raises:
            ValueError: naming what is missing, unknown or of another shape.
        """
        names = [part.name for part in self.parts]
        if odd := sorted(set(names) ^ set(context)):
            what = "lacks" if odd[0] in names else "has an unknown"
            raise ValueError(f"the context {what} {odd[0]!r}; it is {self.words}")
        rows = np.shape(x)[: max(np.ndim(x) - len(self.shape), 0)]
        flat = [self._flat("the sample", x, self.shape, rows)]
        for part in self.parts:
            value = context[part.name]
            flat.append(self._flat(f"context {part.name!r}", value, part.shape, rows))
        return jnp.concatenate(flat, -1)

    def unpack(self, packed: AnyArray) -> tuple[Array, dict[str, Array]]:
        """Samples and contexts; inverse of :meth:`pack`."""
        rows = packed.shape[:-1]
        ends = np.cumsum([math.prod(s) for s in self._shapes])[:-1].tolist()
        x, *values = (
            part.reshape(*rows, *shape)
            for part, shape in zip(jnp.split(packed, ends, -1), self._shapes, strict=True)
        )
        return x, {p.name: v for p, v in zip(self.parts, values, strict=True)}

    def normaliser(self, own: Normaliser | None = None) -> Normaliser | None:
        """Coordinates of the whole vector; None if they are those of the data.

        Args:
            own: of the sample alone, along its last axis.
        """
        if own is None and all(part.normaliser is None for part in self.parts):
            return None
        every = zip((own, *(p.normaliser for p in self.parts)), self._shapes, strict=True)
        shifts, scales = zip(*(_entries(n, shape) for n, shape in every), strict=True)
        return Normaliser(np.concatenate(shifts), np.concatenate(scales))

    def normalised(self, packed: AnyArray) -> Array:
        """Vectors whose contexts are in their coordinates; the samples stay as they are."""
        coordinates = self.normaliser()
        packed = jnp.asarray(packed)
        return packed if coordinates is None else normalise(coordinates, packed)

    def ask(self, model: Any, packed: Sample) -> tuple[Any, Array]:
        """A conditional model of the context in a vector, and the sample there."""
        coordinates = self.normaliser()
        if coordinates is not None:
            packed = unnormalise(coordinates, packed)
        x, context = self.unpack(packed)
        return model(context), x

    def answer(self, x: Sample) -> Float[Array, " size"]:
        """A prediction for a sample as one for the whole vector, 0 for the context."""
        flat = x.reshape(-1)
        return jnp.concatenate([flat, jnp.zeros(self.size - flat.size, flat.dtype)])

    def alone(self, packed: Array | np.ndarray) -> Array:
        """The sample of a vector, without its context."""
        return jnp.asarray(packed)[: math.prod(self.shape)].reshape(self.shape)

    def under(self, fn: Callable[[Array, Array], Array], packed: Array) -> Callable:
        """A function of (vector, t) as one of (sample, t), its context in ``packed``."""
        context = packed[math.prod(self.shape) :]
        return lambda x, t: fn(jnp.concatenate([x.reshape(-1), context]), t)

    def blank(self, context: Context) -> Float[Array, " size"]:
        """The vector of a sample of zeros and one context.

        Raises:
            ValueError: as :meth:`pack`.
        """
        return self.pack(jnp.zeros(self.shape), context)

    def example(self) -> dict[str, np.ndarray]:
        """A context of zeros."""
        return {part.name: np.zeros(part.shape, np.float32) for part in self.parts}

    @property
    def _shapes(self) -> list[tuple[int, ...]]:
        return [self.shape, *(part.shape for part in self.parts)]

    def _flat(
        self, name: str, value: Any, shape: tuple[int, ...], rows: tuple[int, ...]
    ) -> Array:
        if np.shape(value) != (*rows, *shape):
            raise ValueError(
                f"{name} has shape {np.shape(value)}, must have {(*rows, *shape)}"
            )
        return jnp.asarray(value, jnp.float32).reshape(*rows, math.prod(shape))


def context_layout(
    shape: tuple[int, ...],
    parts: Mapping[str, tuple[int, ...]],
    **coordinates: Normaliser,
) -> ContextLayout:
    """The layout of samples of one shape and of contexts with the given parts.

    Args:
        shape: of one sample.
        parts: shape of every array of its context, by name; labels as one-hot vectors.
        **coordinates: of the named parts, for reward networks.

    Raises:
        ValueError: without parts, for a name that is no identifier or ``x``, the name of
            the samples, or for coordinates of no part.
    """
    if not parts:
        raise ValueError("a context needs one part or more; leave it away without any")
    if odd := [name for name in parts if not is_part_name(name)]:
        raise ValueError(f"a part of a context is named by a word but x, not {odd[0]!r}")
    if odd := sorted(set(coordinates) - set(parts)):
        raise ValueError(f"coordinates of {odd[0]!r}, which the context has not")
    return ContextLayout(
        tuple(shape),
        tuple(Part(n, tuple(s), coordinates.get(n)) for n, s in parts.items()),
    )


def is_part_name(name: str) -> bool:
    """Whether an array of a context may be called so: it may be a word of a program."""
    return name.isidentifier() and name.isascii() and name != "x" and len(name) <= 64


def _entries(
    normaliser: Normaliser | None, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Shift and scale of every entry of an array."""
    if normaliser is None:
        size = math.prod(shape)
        return np.zeros(size, np.float32), np.ones(size, np.float32)
    shift, scale = (np.broadcast_to(np.asarray(v), shape).ravel() for v in normaliser)
    return shift.astype(np.float32), scale.astype(np.float32)
