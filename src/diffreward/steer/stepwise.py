"""Rewards per step from rewards of windows or of whole trajectories.

A relative reward judges a trajectory; reinforcement learning wants a number per step.
Both splits below add up to the trajectory's reward by construction, so an episode's
return under them is that reward and no more.
"""

from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from diffreward.data import Normaliser, normalise
from diffreward.diffusion import Schedule
from diffreward.names import choose
from diffreward.reward import noised_values
from diffreward.types import PRNGKey, RewardFn, Scalar, Traj

ValueFn = Callable[[Array], Array]
"""Reward of a clean window or trajectory, (steps, dim) to a scalar."""

Share = Literal["last", "even"]
"""Who is credited with a window: its last step, or all of its steps alike."""


def clean_reward(
    reward_fn: RewardFn,
    schedule: Schedule,
    key: PRNGKey,
    levels: Int[Array, " levels"],
    *,
    num_noises: int = 1,
) -> ValueFn:
    """Reward of clean windows: the mean over levels, and over noises that stay the same.

    The same noises for every window make the result a function, and cancel between
    two windows that are compared.

    Args:
        reward_fn: reward of (x_t, t).
        schedule: its noise schedule.
        key: of the noises.
        levels: noise levels averaged; every one adds a constant of its own.
        num_noises: per level; 0 evaluates at the mean of x_t, without noise.
    """

    def value(x_0: Traj) -> Scalar:
        shape = (levels.size, max(num_noises, 1), *x_0.shape)
        eps = jax.random.normal(key, shape) if num_noises else jnp.zeros(shape)
        return noised_values(reward_fn, schedule, x_0, levels, eps).mean()

    return value


def window_values(value_fn: ValueFn, x_0: Traj, window: int) -> Float[Array, " windows"]:
    """Value of every contiguous window of a trajectory, overlapping, first to last.

    A trajectory shorter than a window has none.
    """
    firsts = jnp.arange(max(x_0.shape[0] - window + 1, 0))
    cut = lambda first: jax.lax.dynamic_slice_in_dim(x_0, first, window)
    # vmap over nothing is an error.
    return jax.vmap(lambda i: value_fn(cut(i)))(firsts) if firsts.size else jnp.zeros(0)


def credit_windows(
    values: Float[Array, " windows"], window: int, share: Share = "last"
) -> Float[Array, " steps"]:
    """Spreads the values of overlapping windows over windows + window - 1 steps.

    Every window weighs 1 / window, since an inner step lies in that many of them; the
    sum over steps equals ``values.sum() / window`` under both shares. ``last`` credits
    the step that completes a window, which an agent can be told at once, and leaves the
    first ``window - 1`` steps with zero; ``even`` looks ahead by up to a window.

    Raises:
        ValueError: for an unknown share.
    """
    choose("share", share, get_args(Share))
    if not values.size:
        raise ValueError(f"no window of {window} steps to credit; give a longer trajectory")
    part = values / window
    if share == "last":
        return jnp.concatenate([jnp.zeros(window - 1), part])
    return jnp.convolve(part, jnp.full(window, 1 / window), mode="full")


def credit_prefixes(
    value_fn: ValueFn,
    x_0: Traj,
    rest: Float[Array, " dim"],
    hold: Bool[Array, " dim"],
) -> tuple[Float[Array, " horizon"], Scalar]:
    """Telescoping credit: what knowing one more step changes about the value.

    Step k is credited with ``V_k - V_{k-1}``, V_k being the value of the trajectory
    whose steps after k are not yet known and filled in. The credits look at no later
    step, and add up to the value of the whole trajectory less that of nothing known.

    Args:
        value_fn: value of a whole trajectory.
        x_0: the trajectory.
        rest: what unknown steps are filled with, one row.
        hold: entries in which unknown steps repeat the last known step instead (the
            observation, as windows are padded after the end of an episode).

    Returns:
        The credits, and the value V_{-1} of nothing known: with it the sum is exact.
    """
    steps = jnp.arange(x_0.shape[0])
    rest = jnp.broadcast_to(rest, x_0.shape)

    def known_to(k: Array) -> Scalar:
        held = jnp.where(hold, x_0[k], rest[0])
        return value_fn(jnp.where((steps <= k)[:, None], x_0, held[None]))

    nothing = value_fn(rest)
    values = jax.vmap(known_to)(steps)
    return jnp.diff(values, prepend=nothing[None]), nothing


def make_step_reward(
    value_fn: ValueFn, normaliser: Normaliser, window: int, share: Share = "last"
) -> Callable[[Array, Array], Array]:
    """Rewards of the steps of one episode from its observations and actions.

    Args:
        value_fn: value of one clean, normalised window.
        normaliser: of ``[action, observation]``.
        window: steps per window.
        share: see :func:`credit_windows`.

    Returns:
        A pure function of observations ``(steps, obs)`` and actions ``(steps, act)``,
        the action being the one taken at the observation, to rewards ``(steps,)``. An
        episode shorter than a window earns nothing.
    """

    def step_reward(observations: Array, actions: Array) -> Array:
        rows = normalise(normaliser, jnp.concatenate([actions, observations], axis=1))
        if len(rows) < window:
            return jnp.zeros(len(rows))
        return credit_windows(window_values(value_fn, rows, window), window, share)

    return step_reward
