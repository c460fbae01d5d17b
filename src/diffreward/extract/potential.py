"""The line integral of the relative score: a potential without training."""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from diffreward.extract.settings import LineIntegral
from diffreward.extract.source import Source, pair_of
from diffreward.extract.training import untrained
from diffreward.reward import Pair, Reward, relative_score
from diffreward.types import Mask, Sample, Scalar, Step

NODES = 32
"""Gauss-Legendre nodes of the extractor; a few suffice where scores are smooth."""


def line_integral(
    pair: Pair, x_t: Sample, t: Step, pinned: Mask | None, nodes: int = 4
) -> Scalar:
    """Integral of the relative score from the origin straight to x_t, in nats.

    If the two scores differ by a gradient, this is its potential with value 0 at the
    origin (the Poincare lemma). Pinned entries do not move.
    """
    places, weights = np.polynomial.legendre.leggauss(nodes)
    move = x_t if pinned is None else jnp.where(pinned, 0.0, x_t)
    rest = x_t - move

    def slope(u: jax.Array) -> jax.Array:
        return jnp.sum(move * relative_score(pair, rest + u * move, t))

    at = jnp.asarray((places + 1) / 2, x_t.dtype)
    return jnp.asarray(weights / 2, x_t.dtype) @ jax.vmap(slope)(at)


def line_potential(
    source: Source, settings: LineIntegral, seed: int, workdir: Path | None
) -> Reward:
    """The line integral of the relative score at every level; nothing is trained.

    Exact up to quadrature for models that are gradients; for others its gradient
    differs from the relative score by what is no gradient. Reads the pair.

    Raises:
        ValueError: without a pair.
    """
    del settings, seed, workdir
    began = time.perf_counter()
    pair = pair_of("line_integral", source)
    rho = lambda x_t, t: line_integral(pair, x_t, t, source.pinned, NODES)
    return untrained("line_integral", rho, source, "nats", began, 2 * NODES)
