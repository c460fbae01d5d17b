"""Two image models as one thing: what the stages of an image experiment need of them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from configs.common import ConfigDict
from diffreward.data import Prompts
from diffreward.diffusion import Remembering, Schedule
from diffreward.types import EpsFn, Params


class Audience(NamedTuple):
    """Held-out images of people's own, in two groups that a good reward tells apart."""

    images: np.ndarray
    """Clean samples, in the coordinates of the models."""
    labels: np.ndarray
    preferred: np.ndarray
    """True for the group that the expert is meant to prefer."""


class BaseEnergy(NamedTuple):
    """What a reward that starts at the base's energy starts at."""

    net: Any
    """f of the energy ``<x, f(x, t)>``."""
    params: Params | None
    """The base's own; None: it has none, and is distilled into one."""


class ImagePair(NamedTuple):
    """Base and expert, and how requests and pictures get in and out."""

    name: str
    shape: tuple[int, ...]
    """Of a latent."""
    schedule: Schedule
    models: Callable[[Params, Any], tuple[EpsFn, EpsFn | Remembering]]
    """Maps (params, context of one request) to base and expert; pure, to be compiled."""
    params: Params
    prompts: Prompts
    """One entry per request."""
    contexts: Callable[[Sequence[int] | np.ndarray], tuple[Array, ...]]
    """Maps indices of requests to their contexts, stacked: a tuple of arrays, () for
    models that take none. A reward reads the first."""
    decode: Callable[[np.ndarray], np.ndarray]
    """Maps latents to pictures (count, height, width, 1 or 3) in [0, 1]."""
    audience: Audience | None = None
    judged: Audience | None = None
    """Other pictures of the audience's kinds, which a judge of pictures learns from."""
    avoided: np.ndarray | None = None
    """Of every request, whether it asks for what the expert is meant to avoid."""
    empty: Callable[[], tuple[Array, ...]] | None = None
    """Contexts of the empty request, one row, for models that take any."""
    cut: Sequence[int] = ()
    """Requests whose prompts are longer than what the encoder reads of them."""
    energy: BaseEnergy | None = None


class PairSource(NamedTuple):
    """How a config becomes a pair; all that an image experiment asks of its ``task``."""

    check: Callable[[ConfigDict], None]
    """Raises ValueError for values that a stage would only meet later."""
    make_pair: Callable[[ConfigDict, Path], ImagePair]
    """Maps (config, folder of the run) to the pair, with stages of its own there."""
    stages: tuple[str, ...]
    """Those stages; the records belong to what they have kept."""
    has_prompts: bool = False
    """Whether a request is a prompt, which a reward may read."""
    has_energy: bool = False
    """Whether the pair has an ``energy``."""


def numbered(count: int) -> Prompts:
    """Requests of a model that takes no prompt: nothing but a number each."""
    return Prompts([f"request {i}" for i in range(count)], {})


def no_context(indices: Sequence[int] | np.ndarray) -> tuple[Array, ...]:
    """Contexts of a model that takes none."""
    del indices
    return ()


def grey(images: np.ndarray) -> np.ndarray:
    """From [-1, 1] to [0, 1]."""
    return np.asarray(jnp.clip((jnp.asarray(images) + 1) / 2, 0, 1))
