"""A pair to try things on: both models and the reward between them are exact."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffreward.arguments import at_least, rows_of
from diffreward.data.pairs import known_pairs
from diffreward.diffusion import DiffusionModel, cosine, discrete
from diffreward.extract import exact_pair


class ToyPair(NamedTuple):
    """Two exact diffusion models of points in a plane, and the reward between them."""

    base: DiffusionModel
    """Three clusters around the origin."""
    expert: DiffusionModel
    """The same, drawn to a goal at (1, 1)."""
    train: Float[Array, "samples 2"]
    """Samples of both, base first."""
    test: Float[Array, "samples 2"]
    """Others."""
    true_reward: Callable[[Any], Float[np.ndarray, " samples"]]
    """Of clean samples, in nats: log density of the expert over the base."""


def toy_pair(count: int = 2000, *, num_steps: int = 32, seed: int = 0) -> ToyPair:
    """A pair with a known reward, to try things on.

    The base is a mixture of Gaussians. The expert is the same law times the exponential of
    a reward that falls with the distance from a goal. Nothing is trained: the scores of
    both are known exactly.

    Args:
        count: samples of each model in ``train``, and half of that in ``test``.
        num_steps: noise levels.
        seed: of the samples.

    Raises:
        ValueError: for numbers that are too small.
    """
    at_least("count", count, 2)
    at_least("num_steps", num_steps, 2)
    at_least("seed", seed, 0)
    known, schedule = known_pairs()["tilted_quadratic"], cosine(num_steps)

    exact = exact_pair(known, schedule)
    model = lambda eps_fn: DiffusionModel(eps_fn, discrete(schedule), "eps")

    def samples(part: int, count: int) -> Float[Array, "samples 2"]:
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), part))
        draws = zip(("base", "expert"), keys, strict=True)
        return jnp.concatenate([known.sample(role, k, count) for role, k in draws])

    clean = jax.jit(jax.vmap(lambda x: known.reward(x, jnp.ones(()))))
    return ToyPair(
        base=model(exact.base),
        expert=model(exact.expert),
        train=samples(0, count),
        test=samples(1, count // 2),
        true_reward=lambda x: np.asarray(clean(rows_of("samples", x, known.shape))),
    )
