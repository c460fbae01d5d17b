"""What the reward distances share: transitions, directions and their distance.

A distance brings both rewards into a canonical form, in which rewards that differ only
in ways no policy can notice coincide, scales the form to length one, and compares the
two directions. Rewards are functions ``(state, action, next_state) -> scalar`` of one
transition; ``jax.vmap`` adds the batch here. Finite problems can be given as tables
``rewards[s, a, s']`` and ``transition[s, a, s'] = P(s' | s, a)`` instead; those are
computed exactly, in float64.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffreward.types import PRNGKey

TransitionReward: TypeAlias = Callable[[Array, Array, Array], Array]
"""Reward of one transition: (state, action, next_state) -> scalar."""

TransitionFn: TypeAlias = Callable[[PRNGKey, Array, Array], Array]
"""One draw of the next state: (key, state, action) -> next_state."""

PolicyFn: TypeAlias = Callable[[PRNGKey, Array], Array]
"""One draw of the action: (key, state) -> action."""

Rewards: TypeAlias = Float[np.ndarray, "states actions states"]
Dynamics: TypeAlias = Float[np.ndarray, "states actions states"]


class Transitions(NamedTuple):
    """A batch of transitions; row i of each array is one of them.

    States and actions may have any shape and dtype (an index of a table, a vector).
    """

    state: Array
    action: Array
    next_state: Array


class Coverage(NamedTuple):
    """Independent draws of states and of actions, row by row."""

    state: Array
    action: Array


def draw_coverage(key: PRNGKey, data: Transitions, num_draws: int) -> Coverage:
    """Draws states and actions of a data set from their marginals, independently."""
    state_key, action_key = jax.random.split(key)
    rows = len(data.state)
    states = data.state[jax.random.randint(state_key, (num_draws,), 0, rows)]
    actions = data.action[jax.random.randint(action_key, (num_draws,), 0, rows)]
    return Coverage(states, actions)


def evaluate(
    reward_fn: TransitionReward, transitions: Transitions
) -> Float[Array, " rows"]:
    """Reward of every transition of a batch."""
    return jax.jit(jax.vmap(reward_fn))(*transitions)


def map_rows(fn: Callable[[Any], Any], rows: Any, batch_size: int) -> Any:
    """Applies ``fn`` to every row of a tree of arrays, ``batch_size`` rows at once."""
    size = min(batch_size, len(jax.tree.leaves(rows)[0]))
    return jax.jit(lambda rows: jax.lax.map(fn, rows, batch_size=size))(rows)


def direction_distance(
    first: Float[np.ndarray, "..."] | Float[Array, "..."],
    second: Float[np.ndarray, "..."] | Float[Array, "..."],
    *,
    weights: Float[np.ndarray, "..."] | None = None,
    centre: bool = False,
    sizes: tuple[float, float] | None = None,
) -> float:
    """Half the distance of two canonical forms after scaling each to length one.

    ``|| x / |x| - y / |y| || / 2 = sqrt((1 - cos(x, y)) / 2)``, in [0, 1]: 0 for equal
    directions, 1 for opposite ones. With ``centre`` the cosine is Pearson's correlation
    and this is the Pearson distance of Gleave et al. (2021). Computed as a norm, it
    keeps its digits near 0, where the square root would lose half of them.

    A form that is zero stays zero (Skalse et al., 2024): its distance to another zero
    is 0, to anything else 1/2.

    Args:
        first: canonical form of one reward.
        second: canonical form of the other, at the same transitions.
        weights: coverage distribution over the entries; uniform by default.
        centre: subtract the means first.
        sizes: magnitudes of the two rewards before canonicalisation. A form smaller
            than the rounding error of its reward counts as zero.
    """
    rounding = 100 * float(jnp.finfo(jnp.result_type(first, second)).eps)
    x, y = (np.asarray(v, np.float64).ravel() for v in (first, second))
    w = np.ones_like(x) if weights is None else np.asarray(weights, np.float64).ravel()
    w = w / w.sum()

    def direction(v: np.ndarray, size: float) -> np.ndarray:
        v = (v - w @ v if centre else v) * np.sqrt(w)
        length = np.linalg.norm(v)
        return np.zeros_like(v) if length <= rounding * size else v / length

    sizes = (0.0, 0.0) if sizes is None else sizes
    gap = direction(x, sizes[0]) - direction(y, sizes[1])
    return float(min(np.linalg.norm(gap) / 2, 1.0))


def form_distance(
    form: Callable[[Any], np.ndarray | Array],
    size: Callable[[Any], float],
    rewards: tuple[Any, Any],
    *,
    weights: Float[np.ndarray, "..."] | None = None,
    centre: bool = False,
) -> float:
    """Distance of the canonical forms of two rewards; see :func:`direction_distance`.

    Args:
        form: canonical form of a reward.
        size: magnitude of a reward before canonicalisation.
        rewards: the two.
        weights: coverage distribution over the entries; uniform by default.
        centre: subtract the means first.
    """
    first, second = rewards
    sizes = size(first), size(second)
    return direction_distance(
        form(first), form(second), weights=weights, centre=centre, sizes=sizes
    )


def check_discount(discount: float) -> None:
    """Refuses a discount outside [0, 1).

    Raises:
        ValueError: if it is.
    """
    if not 0 <= discount < 1:
        raise ValueError(f"discount must be in [0, 1), got {discount:g}")


def check_dynamics(transition: Dynamics) -> None:
    """Refuses a tensor that is not a distribution over next states.

    Raises:
        ValueError: with the first state and action whose row is not one.
    """
    bad = (transition < 0).any(2) | (np.abs(transition.sum(2) - 1) > 1e-6)
    if bad.any():
        s, a = np.argwhere(bad)[0]
        raise ValueError(
            f"transition[{s}, {a}] is no distribution (sum {transition[s, a].sum():g}); "
            "rows over next states must be non-negative and sum to 1"
        )


def distribution(weights: np.ndarray | None, size: int, name: str) -> np.ndarray:
    """Weights over ``size`` items, scaled to sum to one; uniform if ``None``.

    Raises:
        ValueError: if they are negative, all zero, or not ``size`` numbers.
    """
    if weights is None:
        return np.full(size, 1 / size)
    w = np.asarray(weights, np.float64)
    if w.shape != (size,) or (w < 0).any() or w.sum() == 0:
        raise ValueError(f"{name} must be {size} non-negative numbers, not all zero")
    return w / w.sum()


def size_of(values: np.ndarray | Array) -> float:
    """Largest magnitude of a reward, the scale of its rounding error."""
    return float(np.abs(np.asarray(values)).max())
