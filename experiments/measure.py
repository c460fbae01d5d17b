"""Compiled measurements of a reward against its pair, shared by all experiments."""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array

from diffreward.learn import Denoiser, RewardModel
from diffreward.reward import log_ratio, metrics
from diffreward.types import Params

CHUNK = 16
"""Windows measured at once; bounds the memory."""

Measure = Callable[[Params, Params, Params, Any], tuple[Array, ...]]
"""Of (base, expert, reward parameters, windows)."""


def make_values(model: Denoiser, reward: RewardModel, num_noises: int) -> Measure:
    """Of each window the reward, its part at the least noise, the training-free log ratio.

    The reward is a mean over levels, which ranks; at the least noise it is in its own
    units, up to an offset.
    """

    @jax.jit
    def values(base: Params, expert: Params, params: Params, x: Array) -> tuple:
        pair = model.pair(base, expert)
        keys = jax.random.split(jax.random.key(3), (x.shape[0], 2))
        rho = reward.reward_fn(params)
        pinned = model.pinned

        def one(args: tuple) -> tuple:
            x, k = args
            r = metrics.noised_reward(
                rho, pair, k[0], x, pinned=pinned, num_noises=num_noises
            )
            gap = log_ratio(pair, k[1], x, pinned=pinned, num_noises=num_noises)
            return r.mean(), r[0], gap.sum()

        return jax.lax.map(one, (x, keys), batch_size=CHUNK)

    return values


def make_gradient_fit(
    model: Denoiser, reward: RewardModel
) -> Callable[[Params, Params, Params, Any], metrics.GradientFit]:
    """How a reward agrees with its pair per noise level, summed over windows."""

    @jax.jit
    def fit(base: Params, expert: Params, params: Params, x: Array) -> Any:
        pair = model.pair(base, expert)
        keys = jax.random.split(jax.random.key(4), x.shape[0])
        measure = lambda a: metrics.gradient_fit(
            reward.reward_fn(params),
            pair,
            a[1],
            a[0],
            objective=reward.objective,
            pinned=model.pinned if reward.objective.conditioned else None,
        )
        found = jax.lax.map(measure, (x, keys), batch_size=CHUNK)
        return jax.tree.map(lambda sums: sums.sum(0), found)

    return lambda *args: jax.device_get(fit(*args))
