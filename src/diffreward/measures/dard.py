"""DARD, the Dynamics-Aware Reward Distance of Wulfe et al. (2022).

Like EPIC, but the canonical form follows a transition model, so that a learned reward
is asked about states one or two steps from its data rather than about impossible ones.
"""

import jax
import numpy as np
from jaxtyping import Array, Float

from diffreward.measures.canonical import (
    Dynamics,
    Rewards,
    TransitionFn,
    TransitionReward,
    Transitions,
    check_discount,
    check_dynamics,
    distribution,
    evaluate,
    form_distance,
    map_rows,
    size_of,
)
from diffreward.types import PRNGKey


def dard_canonical(
    reward_fn: TransitionReward,
    transitions: Transitions,
    actions: Array,
    transition_fn: TransitionFn,
    key: PRNGKey,
    discount: float,
    *,
    batch_size: int = 256,
) -> Float[Array, " rows"]:
    """Dynamics-aware form of every transition (Wulfe et al. 2022).

    ``R(s, a, s') + E[g R(s', A, S'') - R(s, A, S') - g R(S', A, S'')]`` with
    ``S' ~ T(s, A)`` and ``S'' ~ T(s', A)``. All terms share their draws, so shaping by
    a potential cancels draw by draw.

    Args:
        reward_fn: reward of one transition.
        transitions: where the form is evaluated.
        actions: draws of A; the first axis is averaged over.
        transition_fn: one draw of the next state from (key, state, action).
        key: key of the draws; use one key for rewards that are to be compared.
        discount: discount factor in [0, 1).
        batch_size: transitions handled at once.

    Raises:
        ValueError: for a discount outside [0, 1).
    """
    check_discount(discount)

    def shaping(state: Array, following: Array, key: Array, action: Array) -> Array:
        first_key, second_key = jax.random.split(key)
        one = transition_fn(first_key, state, action)
        two = transition_fn(second_key, following, action)
        ahead = reward_fn(following, action, two) - reward_fn(one, action, two)
        return discount * ahead - reward_fn(state, action, one)

    def canonical(row: tuple[Transitions, Array]) -> Array:
        (state, action, following), key = row
        keys = jax.random.split(key, len(actions))
        terms = jax.vmap(shaping, (None, None, 0, 0))(state, following, keys, actions)
        return reward_fn(state, action, following) + terms.mean()

    keys = jax.random.split(key, len(transitions.state))
    return map_rows(canonical, (transitions, keys), batch_size)


def dard_distance(
    first: TransitionReward,
    second: TransitionReward,
    transitions: Transitions,
    actions: Array,
    transition_fn: TransitionFn,
    key: PRNGKey,
    discount: float,
    *,
    batch_size: int = 256,
) -> float:
    """Pearson distance of two dynamics-aware forms over sampled transitions.

    In [0, 1]. Both rewards meet the same draws, so equal rewards have distance 0 for
    any number of them; few draws leave noise in both forms. Arguments as in
    :func:`dard_canonical`, with two rewards.

    Raises:
        ValueError: for a discount outside [0, 1).
    """

    def form(reward_fn: TransitionReward) -> Array:
        arguments = (transitions, actions, transition_fn, key, discount)
        return dard_canonical(reward_fn, *arguments, batch_size=batch_size)

    size = lambda reward_fn: size_of(evaluate(reward_fn, transitions))
    return form_distance(form, size, (first, second), centre=True)


def dard_canonical_table(
    rewards: Rewards,
    transition: Dynamics,
    discount: float,
    *,
    action_weights: Float[np.ndarray, " actions"] | None = None,
) -> Rewards:
    """Exact dynamics-aware form of a finite problem.

    Args:
        rewards: ``rewards[s, a, s']``.
        transition: ``transition[s, a, s'] = P(s' | s, a)``.
        discount: discount factor in [0, 1).
        action_weights: coverage of actions; uniform by default.

    Raises:
        ValueError: for a discount outside [0, 1), weights or rows that are no
            distribution.
    """
    check_discount(discount)
    check_dynamics(transition)
    actions = distribution(action_weights, rewards.shape[1], "action_weights")
    mean = np.einsum("a,sax,sax->s", actions, transition, rewards)
    across = np.einsum(
        "a,sax,nay,xay->sn", actions, transition, transition, rewards, optimize=True
    )
    shaping = discount * mean[None, :] - mean[:, None] - discount * across
    return rewards + shaping[:, None, :]


def dard_distance_table(
    first: Rewards,
    second: Rewards,
    transition: Dynamics,
    discount: float,
    *,
    action_weights: Float[np.ndarray, " actions"] | None = None,
    coverage: Float[np.ndarray, "states actions states"] | None = None,
) -> float:
    """Exact DARD distance of two reward tables.

    ``coverage`` is the distribution over transitions under which the forms are compared;
    by default uniform states, covered actions and the problem's own next states. Other
    arguments as in :func:`dard_canonical_table`, with two rewards.

    Raises:
        ValueError: for a discount outside [0, 1), weights or rows that are no
            distribution.
    """
    form = lambda rewards: dard_canonical_table(
        rewards, transition, discount, action_weights=action_weights
    )
    if coverage is None:
        actions = distribution(action_weights, first.shape[1], "action_weights")
        coverage = actions[:, None] * transition
    return form_distance(form, size_of, (first, second), weights=coverage, centre=True)
