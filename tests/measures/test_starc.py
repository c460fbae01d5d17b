"""STARC against value iteration, an optimiser, and the order of policies itself."""

import inspect
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from diffreward.measures import (
    minimal_canonical_table,
    starc_distance,
    starc_distance_table,
    val_canonical,
    val_canonical_table,
)
from tests.measures import problems

EXAMPLES = settings(deadline=None, max_examples=30)
P = problems.draw(5, states=3, actions=2)
POLICY = np.array([[0.2, 0.8], [0.6, 0.4], [0.9, 0.1]])
START = np.array([0.5, 0.3, 0.2])


def advantage_by_iteration(rewards, policy):
    value = np.zeros(3)
    for _ in range(4000):
        ahead = P.transition * (rewards + P.discount * value)
        value = (policy * ahead.sum(2)).sum(1)
    return ahead.sum(2) - value[:, None]


def test_value_adjusted_form_is_the_advantage():
    got = val_canonical_table(P.first, P.transition, P.discount, policy=POLICY)
    np.testing.assert_allclose(got, advantage_by_iteration(P.first, POLICY), atol=1e-9)
    got = val_canonical_table(P.first, P.transition, P.discount)
    uniform = np.full((3, 2), 0.5)
    np.testing.assert_allclose(got, advantage_by_iteration(P.first, uniform), atol=1e-9)


def test_minimal_form_against_an_optimiser():
    mean = (P.transition * P.first).sum(2)

    def shaped(potential):
        return mean + P.discount * P.transition @ potential - potential[:, None]

    best = minimize(lambda f: np.sum(shaped(f) ** 2), np.zeros(3), tol=1e-12)
    got = minimal_canonical_table(P.first, P.transition, P.discount)
    np.testing.assert_allclose(got, shaped(best.x), atol=1e-5)


def test_distance_by_hand():
    for canonical, form in (
        ("val", lambda r: val_canonical_table(r, P.transition, P.discount)),
        ("minimal", lambda r: minimal_canonical_table(r, P.transition, P.discount)),
    ):
        x, y = (form(r).ravel() for r in (P.first, P.second))
        cosine = x @ y / np.sqrt((x @ x) * (y @ y))
        got = starc_distance_table(
            P.first, P.second, P.transition, P.discount, canonical=canonical
        )
        assert got == pytest.approx(np.sqrt((1 - cosine) / 2))


@EXAMPLES
@given(seed=st.integers(0, 2**31))
def test_distance_zero_keeps_the_order_of_every_policy(seed):
    p = problems.draw(seed, states=3, actions=2)
    changed = problems.redistribute(p, problems.shape(p, 0.4 * p.first))
    assert starc_distance_table(
        p.first, changed, p.transition, p.discount
    ) == pytest.approx(0, abs=1e-10)
    deterministic = [np.eye(2)[list(c)] for c in product(range(2), repeat=3)]
    policies = deterministic + list(p.rng.dirichlet(np.ones(2), (20, 3)))
    one, two = (
        np.array([problems.policy_return(p, r, pi, START) for pi in policies])
        for r in (p.first, changed)
    )
    # Returns differ by the positive scale and a constant: the order is the same.
    np.testing.assert_allclose(two - two[0], 0.4 * (one - one[0]), atol=1e-9)


@EXAMPLES
@given(seed=st.integers(0, 2**31))
def test_positive_distance_means_two_policies_in_opposite_order(seed):
    """The converse, by construction of the two policies.

    Returns are linear in the discounted occupancy of (s, a). The minimal form is the
    reward's component along the directions in which occupancies can move; so a small
    step from u = x / |x| - y / |y| raises the first return and lowers the second.
    """
    p = problems.draw(seed, states=3, actions=2)
    x, y = (
        minimal_canonical_table(r, p.transition, p.discount) for r in (p.first, p.second)
    )
    distance = starc_distance_table(
        p.first, p.second, p.transition, p.discount, canonical="minimal"
    )
    assert distance > 1e-3
    uniform = np.full((3, 2), 0.5)
    chain = np.einsum("sa,san->sn", uniform, p.transition)
    visits = np.linalg.solve(np.eye(3) - p.discount * chain.T, START)
    occupancy = uniform * visits[:, None]
    moved = x / np.linalg.norm(x) - y / np.linalg.norm(y)
    occupancy = occupancy + 0.5 * occupancy.min() * moved / np.abs(moved).max()
    policy = occupancy / occupancy.sum(1, keepdims=True)
    gain, loss = (
        problems.policy_return(p, r, policy, START)
        - problems.policy_return(p, r, uniform, START)
        for r in (p.first, p.second)
    )
    assert gain > 0 > loss


def rollouts(problem):
    choose = lambda key, s: jax.random.randint(key, (), 0, 2)
    return choose, problems.as_transition_fn(problem)


def test_sampled_form_is_the_advantage(key):
    """Unbiased: within five standard errors of the exact table, at every entry."""
    p = P._replace(discount=0.7)
    states, actions = problems.every_pair(3, 2)
    r = problems.as_function(p.first)

    def form(key, s, a):
        return val_canonical(
            r, s, a, *rollouts(p), key, p.discount, num_rollouts=100, horizon=40
        )

    keys = jax.random.split(key, (6, 20))
    draws = jax.jit(jax.vmap(jax.vmap(form, (0, None, None))))(keys, states, actions)
    error = np.asarray(draws).std(1, ddof=1) / 20**0.5
    exact = val_canonical_table(p.first, p.transition, p.discount).ravel()
    assert (np.abs(np.asarray(draws).mean(1) - exact) < 5 * error).all()
    assert error.max() < 0.1


def test_sampled_distance(key):
    p = P._replace(discount=0.5)
    states, actions = problems.every_pair(3, 2)
    potential = jnp.array([3.0, -1.0, 2.0])
    r = problems.as_function(p.first)
    shaped = lambda s, a, n: 2.0 * r(s, a, n) + 0.5 * potential[n] - potential[s]
    arguments = (states, actions, *rollouts(p), key, p.discount)
    few = {"num_rollouts": 8, "horizon": 25}
    assert starc_distance(r, shaped, *arguments, **few) < 1e-4
    minus = lambda s, a, n: -r(s, a, n)
    assert starc_distance(r, minus, *arguments, **few) == pytest.approx(1)


def test_nothing_random_makes_the_sampled_distance_exact(key):
    moves, choice = np.array([[1, 2], [2, 0], [0, 1]]), np.array([0, 1, 1])
    table, chosen = (jnp.asarray(v, jnp.int32) for v in (moves, choice))
    got = starc_distance(
        *(problems.as_function(t) for t in (P.first, P.second)),
        *problems.every_pair(3, 2),
        lambda key, s: chosen[s],
        lambda key, s, a: table[s, a],
        key,
        0.5,
        num_rollouts=1,
        horizon=30,
        batch_size=4,
    )
    exact = starc_distance_table(
        P.first, P.second, np.eye(3)[moves], 0.5, policy=np.eye(2)[choice]
    )
    assert got == pytest.approx(exact, abs=1e-6)


def test_unknown_form_is_named():
    # The test run's type checker would refuse it first.
    distance = inspect.unwrap(starc_distance_table)
    with pytest.raises(ValueError, match="unknown canonical form 'value'; did you mean 'v"):
        distance(P.first, P.second, P.transition, 0.5, canonical="value")
