"""EPIC, the Equivalent-Policy Invariant Comparison of Gleave et al. (2021).

Invariant to positive scale and to potential shaping under any dynamics, because the
canonical form averages over next states that need not be reachable.
"""

import jax
import numpy as np
from jaxtyping import Array, Float

from diffreward.measures.canonical import (
    Coverage,
    Rewards,
    TransitionReward,
    Transitions,
    check_discount,
    distribution,
    evaluate,
    form_distance,
    map_rows,
    size_of,
)


def epic_canonical(
    reward_fn: TransitionReward,
    transitions: Transitions,
    coverage: Coverage,
    discount: float,
    *,
    batch_size: int = 256,
) -> Float[Array, " rows"]:
    """Canonically shaped reward of every transition (Gleave et al. 2021, def. 4.1).

    ``R(s, a, s') + E[g R(s', A, S') - R(s, A, S') - g R(S, A, S')]`` with S, S' and A
    independent draws of ``coverage``, the same for every transition: shaping by a
    potential then cancels exactly, not only on average. Rewards are called
    ``2 rows * draws + draws^2`` times.

    Args:
        reward_fn: reward of one transition.
        transitions: where the form is evaluated.
        coverage: draws of states and actions, from outside the problem or by
            :func:`~diffreward.measures.canonical.draw_coverage` from data.
        discount: discount factor in [0, 1).
        batch_size: states handled at once.

    Raises:
        ValueError: for a discount outside [0, 1).
    """
    check_discount(discount)

    def mean_reward(state: Array) -> Array:
        """E[R(state, A, S')]."""
        call = lambda action, following: reward_fn(state, action, following)
        return jax.vmap(call)(coverage.action, coverage.state).mean()

    def means(states: Array) -> Array:
        return map_rows(mean_reward, states, batch_size)

    before, after = means(transitions.state), means(transitions.next_state)
    overall = means(coverage.state).mean()
    plain = evaluate(reward_fn, transitions)
    return plain + discount * after - before - discount * overall


def epic_distance(
    first: TransitionReward,
    second: TransitionReward,
    transitions: Transitions,
    coverage: Coverage,
    discount: float,
    *,
    batch_size: int = 256,
) -> float:
    """Pearson distance of two canonically shaped rewards over sampled transitions.

    In [0, 1]; 0 for rewards that differ by positive scale and shaping, 1 for opposite
    ones. Arguments as in :func:`epic_canonical`, with two rewards.

    Raises:
        ValueError: for a discount outside [0, 1).
    """
    form = lambda reward_fn: epic_canonical(
        reward_fn, transitions, coverage, discount, batch_size=batch_size
    )
    size = lambda reward_fn: size_of(evaluate(reward_fn, transitions))
    return form_distance(form, size, (first, second), centre=True)


def epic_canonical_table(
    rewards: Rewards,
    discount: float,
    *,
    state_weights: Float[np.ndarray, " states"] | None = None,
    action_weights: Float[np.ndarray, " actions"] | None = None,
) -> Rewards:
    """Exact canonically shaped reward of a finite problem.

    Args:
        rewards: ``rewards[s, a, s']``.
        discount: discount factor in [0, 1).
        state_weights: coverage of states; uniform by default.
        action_weights: coverage of actions; uniform by default.

    Raises:
        ValueError: for a discount outside [0, 1) or weights that are none.
    """
    check_discount(discount)
    states = distribution(state_weights, rewards.shape[0], "state_weights")
    actions = distribution(action_weights, rewards.shape[1], "action_weights")
    mean = np.einsum("a,n,san->s", actions, states, rewards)
    shaping = discount * mean[None, None, :] - mean[:, None, None]
    return rewards + shaping - discount * (states @ mean)


def epic_distance_table(
    first: Rewards,
    second: Rewards,
    discount: float,
    *,
    state_weights: Float[np.ndarray, " states"] | None = None,
    action_weights: Float[np.ndarray, " actions"] | None = None,
    coverage: Float[np.ndarray, "states actions states"] | None = None,
) -> float:
    """Exact EPIC distance of two reward tables.

    ``coverage`` is the distribution over transitions (s, a, s') under which the forms are
    compared; by default the product of the weights. Other arguments as in
    :func:`epic_canonical_table`, with two rewards.

    Raises:
        ValueError: for a discount outside [0, 1) or weights that are none.
    """
    options = {"state_weights": state_weights, "action_weights": action_weights}
    form = lambda rewards: epic_canonical_table(rewards, discount, **options)
    if coverage is None:
        states = distribution(state_weights, first.shape[0], "state_weights")
        actions = distribution(action_weights, first.shape[1], "action_weights")
        coverage = np.einsum("s,a,n->san", states, actions, states)
    return form_distance(form, size_of, (first, second), weights=coverage, centre=True)
