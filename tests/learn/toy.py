"""Networks, models and windows small enough to be checked by hand."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffreward.data import Windows
from diffreward.diffusion import cosine
from diffreward.learn import Denoiser

SCHEDULE = cosine(12)
HORIZON, DIM = 2, 3
SHAPE = (HORIZON, DIM)
PINNED = jnp.zeros(SHAPE, bool).at[0, 1].set(True)


class Affine(NamedTuple):
    """Predicts ``slope * x + shift``, whatever the level: x_0 of a fixed Gaussian."""

    def init(self, key, x, t):
        return {"slope": jnp.ones(()), "shift": jnp.zeros(x.shape)}

    def apply(self, params, x, t):
        return params["slope"] * x + params["shift"]


class Quadratic(NamedTuple):
    """A reward ``<w, x> + curve |x|^2 / 2``, whose gradient is w + curve x."""

    def init(self, key, x, t, *context):
        return {"w": jax.random.normal(key, x.shape), "curve": jnp.zeros(())}

    def apply(self, params, x, t, *context):
        shift = sum(c.sum() for c in context)
        return ((params["w"] + shift) * x).sum() + params["curve"] * (x**2).sum() / 2


MODEL = Denoiser(Affine(), SCHEDULE, PINNED)
rng = np.random.default_rng(0)
BASE = {"slope": jnp.float32(0.9), "shift": jnp.asarray(rng.normal(size=SHAPE), "float32")}
EXPERT = {
    "slope": jnp.float32(0.6),
    "shift": jnp.asarray(rng.normal(size=SHAPE), "float32"),
}


def windows(value: float, length: int = 5) -> Windows:
    """Windows of one episode, whose rows are ``value`` plus a tenth of their number.

    The last one is padded: its second step is after the end of the episode.
    """
    rows = value + np.arange(length, dtype=np.float32)[:, None] / 10 + np.zeros(DIM, "f")
    start = np.arange(length, dtype=np.int32)
    last = np.full(length, length - 1, np.int32)
    pad = np.zeros(1, np.float32)
    stride, offset, count = (np.asarray(n, np.int32) for n in (1, 0, length))
    return Windows(rows, start, last, pad, stride, offset, count)


def normals(seed: int, *shape: int):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)
