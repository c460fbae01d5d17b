"""Random finite problems, and the changes of a reward that no policy can notice."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffreward.measures.canonical import Transitions


class Problem(NamedTuple):
    """Dynamics with every state reachable, and two unrelated rewards."""

    transition: np.ndarray
    first: np.ndarray
    second: np.ndarray
    discount: float
    rng: np.random.Generator


def draw(seed, states=None, actions=None) -> Problem:
    rng = np.random.default_rng(seed)
    states = states or int(rng.integers(2, 6))
    actions = actions or int(rng.integers(2, 4))
    shape = (states, actions, states)
    transition = rng.dirichlet(np.ones(states), shape[:2])
    first, second = rng.normal(size=(2, *shape))
    return Problem(transition, first, second, float(rng.uniform(0.1, 0.95)), rng)


def shape(problem, rewards, size=5.0):
    potential = size * problem.rng.normal(size=len(rewards))
    return rewards + problem.discount * potential - potential[:, None, None]


def redistribute(problem, rewards):
    """Changes R(s, a, s') and keeps its mean over s' under the dynamics."""
    noise = problem.rng.normal(size=rewards.shape)
    mean = (problem.transition * noise).sum(2, keepdims=True)
    return rewards + noise - mean


def policy_return(problem, rewards, policy, start):
    """Discounted return of policy[s, a] by solving the Bellman equation."""
    chain = np.einsum("sa,san->sn", policy, problem.transition)
    gain = np.einsum("sa,san,san->s", policy, problem.transition, rewards)
    return start @ np.linalg.solve(np.eye(len(start)) - problem.discount * chain, gain)


def as_function(table):
    values = jnp.asarray(table, jnp.float32)
    return lambda s, a, n: values[s, a, n]


def as_transition_fn(problem):
    logits = jnp.log(jnp.asarray(problem.transition, jnp.float32))
    return lambda key, s, a: jax.random.categorical(key, logits[s, a])


def every_transition(table) -> Transitions:
    """All (s, a, s') in the order of a flattened table."""
    index = np.indices(table.shape).reshape(3, -1)
    return Transitions(*(jnp.asarray(i, jnp.int32) for i in index))


def every_pair(num_states, num_actions):
    """Each state with each action once: exact means over uniform coverage."""
    s, a = np.indices((num_states, num_actions)).reshape(2, -1)
    return jnp.asarray(s, jnp.int32), jnp.asarray(a, jnp.int32)
