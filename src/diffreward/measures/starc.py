"""STARC, the Standardised Reward Comparison of Skalse et al. (2024).

The canonical form averages next states out with the problem's own dynamics, so it also
ignores S'-redistribution: changes of R(s, a, s') that keep its mean over s'. Where all
states can be reached, distance 0 means the same order of all policies, and the distance
bounds the worst-case regret from both sides.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffreward.measures.canonical import (
    Dynamics,
    PolicyFn,
    Rewards,
    TransitionFn,
    TransitionReward,
    check_discount,
    check_dynamics,
    direction_distance,
    form_distance,
    map_rows,
    size_of,
)
from diffreward.names import choose
from diffreward.types import PRNGKey

Canonical = Literal["val", "minimal"]
Table = Float[np.ndarray, "states actions"]


def val_canonical_table(
    rewards: Rewards,
    transition: Dynamics,
    discount: float,
    *,
    policy: Table | None = None,
) -> Table:
    """Value-adjusted levelling: E[R(s, a, S') + g V(S')] - V(s) of a fixed policy.

    This is the policy's advantage function; any fixed policy serves.

    Args:
        rewards: ``rewards[s, a, s']``.
        transition: ``transition[s, a, s'] = P(s' | s, a)``.
        discount: discount factor in [0, 1).
        policy: ``policy[s, a]``, rows that sum to one; uniform by default.

    Raises:
        ValueError: for a discount outside [0, 1) or rows that are no distribution.
    """
    mean = _mean_reward(rewards, transition, discount)
    if policy is None:
        policy = np.full(mean.shape, 1 / mean.shape[1])
    chain = np.einsum("sa,san->sn", policy, transition)
    value = np.linalg.solve(np.eye(len(chain)) - discount * chain, (policy * mean).sum(1))
    return mean + discount * transition @ value - value[:, None]


def minimal_canonical_table(
    rewards: Rewards, transition: Dynamics, discount: float
) -> Table:
    """The shortest reward R(s, a) that orders policies as ``rewards`` does.

    The least-squares residual of E[R(s, a, S')] against all potential shapings:
    orthogonal to them, and of least L2 norm among functions of state and action.

    Raises:
        ValueError: for a discount outside [0, 1) or rows that are no distribution.
    """
    mean = _mean_reward(rewards, transition, discount)
    states = len(mean)
    shaping = discount * transition - np.eye(states)[:, None, :]
    shaping = shaping.reshape(-1, states)
    potential = np.linalg.lstsq(shaping, mean.ravel())[0]
    return mean - (shaping @ potential).reshape(mean.shape)


def starc_distance_table(
    first: Rewards,
    second: Rewards,
    transition: Dynamics,
    discount: float,
    *,
    canonical: Canonical = "val",
    policy: Table | None = None,
) -> float:
    """Exact STARC distance of two reward tables, with L2 norm and L2 metric.

    The paper's distance reaches 2; half of it is in [0, 1], as EPIC and DARD are.

    Args:
        first: ``rewards[s, a, s']``.
        second: the other reward.
        transition: ``transition[s, a, s'] = P(s' | s, a)``.
        discount: discount factor in [0, 1).
        canonical: ``val`` or ``minimal``.
        policy: of ``val``; uniform by default.

    Raises:
        ValueError: for an unknown form, a discount outside [0, 1), or rows that are no
            distribution.
    """
    choose("canonical form", canonical, get_args(Canonical))

    def form(rewards: np.ndarray) -> np.ndarray:
        if canonical == "minimal":
            return minimal_canonical_table(rewards, transition, discount)
        return val_canonical_table(rewards, transition, discount, policy=policy)

    # Values, and with them rounding errors, are up to 1 / (1 - g) times the rewards.
    size = lambda rewards: size_of(rewards) / (1 - discount)
    return form_distance(form, size, (first, second))


def val_canonical(
    reward_fn: TransitionReward,
    state: Array,
    action: Array,
    policy_fn: PolicyFn,
    transition_fn: TransitionFn,
    key: PRNGKey,
    discount: float,
    *,
    num_rollouts: int = 64,
    horizon: int = 100,
) -> Float[Array, ""]:
    """Value-adjusted levelling of one state and action, by rollouts of a simulator.

    An unbiased estimate of the policy's advantage, up to the rewards beyond
    ``horizon`` (a share ``discount**horizon``). Along a rollout a potential telescopes,
    so shaping cancels up to the same share, rollout by rollout.

    Args:
        reward_fn: reward of one transition.
        state: where the form is evaluated.
        action: the action there.
        policy_fn: one draw of the action from (key, state); any fixed policy.
        transition_fn: one draw of the next state from (key, state, action).
        key: key of the rollouts; use one key for rewards that are to be compared.
        discount: discount factor in [0, 1).
        num_rollouts: rollouts averaged.
        horizon: steps of a rollout.

    Raises:
        ValueError: for a discount outside [0, 1).
    """
    check_discount(discount)

    def outcome(key: Array, start: Array) -> Array:
        """Discounted reward of one rollout from ``start``."""

        def step(carry: tuple[Array, Array], key: Array) -> tuple[tuple, Array]:
            state, factor = carry
            action_key, next_key = jax.random.split(key)
            action = policy_fn(action_key, state)
            following = transition_fn(next_key, state, action)
            reward = factor * reward_fn(state, action, following)
            return (following, factor * discount), reward

        keys = jax.random.split(key, horizon)
        return jax.lax.scan(step, (start, jnp.ones(())), keys)[1].sum()

    def advantage(key: Array) -> Array:
        # One key for both rollouts: what they have in common drops out.
        next_key, rollout_key = jax.random.split(key)
        following = transition_fn(next_key, state, action)
        after, before = outcome(rollout_key, following), outcome(rollout_key, state)
        return reward_fn(state, action, following) + discount * after - before

    return jax.vmap(advantage)(jax.random.split(key, num_rollouts)).mean()


def starc_distance(
    first: TransitionReward,
    second: TransitionReward,
    states: Array,
    actions: Array,
    policy_fn: PolicyFn,
    transition_fn: TransitionFn,
    key: PRNGKey,
    discount: float,
    *,
    num_rollouts: int = 64,
    horizon: int = 100,
    batch_size: int = 256,
) -> float:
    """STARC distance (value-adjusted, L2) over sampled states and actions.

    Both rewards meet the same rollouts, so equal rewards have distance 0 for any number
    of them; few rollouts leave noise in both forms. Arguments as in
    :func:`val_canonical`, with two rewards and batches of states and actions.

    Raises:
        ValueError: for a discount outside [0, 1).
    """
    keys = jax.random.split(key, len(states))
    options = {"num_rollouts": num_rollouts, "horizon": horizon}

    def both(row: tuple[Array, Array, Array]) -> tuple[Array, ...]:
        state, action, key = row
        arguments = (state, action, policy_fn, transition_fn, key, discount)
        forms = (val_canonical(r, *arguments, **options) for r in (first, second))
        following = transition_fn(key, state, action)
        return *forms, *(r(state, action, following) for r in (first, second))

    rows = (states, actions, keys)
    *forms, one, two = map_rows(both, rows, batch_size)
    sizes = size_of(one) / (1 - discount), size_of(two) / (1 - discount)
    return direction_distance(*forms, sizes=sizes)


def _mean_reward(rewards: np.ndarray, transition: np.ndarray, discount: float) -> Table:
    check_discount(discount)
    check_dynamics(transition)
    return (transition * rewards).sum(2)
