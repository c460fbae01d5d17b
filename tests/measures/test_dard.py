"""DARD against loops over its definition, and sampled against exact."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.measures import (
    dard_canonical,
    dard_canonical_table,
    dard_distance,
    dard_distance_table,
)
from diffreward.measures.canonical import Transitions
from tests.measures import problems

P = problems.draw(4, states=3, actions=2)
DA = np.array([0.7, 0.3])


def by_loops(r, discount):
    t, out = P.transition, r.copy()
    states = range(3)
    for s, a, n, b in product(states, range(2), states, range(2)):
        for x, y in product(states, states):
            weight = DA[b] * t[s, b, x] * t[n, b, y]
            ahead = r[n, b, y] - r[x, b, y]
            out[s, a, n] += weight * (discount * ahead - r[s, b, x])
    return out


def test_canonical_form_by_loops():
    got = dard_canonical_table(P.first, P.transition, P.discount, action_weights=DA)
    np.testing.assert_allclose(got, by_loops(P.first, P.discount), atol=1e-12)


def test_distance_is_pearsons_over_feasible_transitions():
    w = (DA[:, None] * P.transition).ravel()
    forms = [by_loops(r, P.discount).ravel() for r in (P.first, P.second)]
    c = np.cov(np.stack(forms), aweights=w, ddof=0)
    expected = np.sqrt((1 - c[0, 1] / np.sqrt(c[0, 0] * c[1, 1])) / 2)
    got = dard_distance_table(
        P.first, P.second, P.transition, P.discount, action_weights=DA
    )
    assert got == pytest.approx(expected)


def test_deterministic_dynamics_make_the_sampled_form_exact(key):
    moves = np.array([[1, 2], [2, 0], [0, 0]])
    transition = np.eye(3)[moves]
    table = jnp.asarray(moves, jnp.int32)
    rows, actions = problems.every_transition(P.first), jnp.arange(2)
    arguments = (rows, actions, lambda key, s, a: table[s, a], key, P.discount)
    r, q = problems.as_function(P.first), problems.as_function(P.second)
    got = dard_canonical(r, *arguments, batch_size=7).reshape(3, 2, 3)
    expected = dard_canonical_table(P.first, transition, P.discount)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    exact = dard_distance_table(
        P.first, P.second, transition, P.discount, coverage=np.ones((3, 2, 3))
    )
    assert dard_distance(r, q, *arguments) == pytest.approx(exact, abs=1e-5)


def test_sampled_form_converges(key):
    """Within five standard errors, which repeated keys measure."""
    rows, step = problems.every_transition(P.first), problems.as_transition_fn(P)
    r, actions = problems.as_function(P.first), jnp.tile(jnp.arange(2), 100)
    form = lambda k: dard_canonical(r, rows, actions, step, k, P.discount)
    draws = np.asarray(jax.jit(jax.vmap(form))(jax.random.split(key, 30)), np.float64)
    error = draws.std(0, ddof=1) / 30**0.5
    exact = dard_canonical_table(P.first, P.transition, P.discount).ravel()
    assert (np.abs(draws.mean(0) - exact) < 5 * error).all()
    assert error.max() < 0.05


def test_continuous_shaping_cancels_draw_by_draw(key):
    keys = jax.random.split(key, 5)
    data = Transitions(*(jax.random.normal(k, (40, 2)) for k in keys[:3]))
    actions = jax.random.normal(keys[3], (8, 2))
    step = lambda k, s, a: 0.8 * s + a + 0.1 * jax.random.normal(k, (2,))
    first = lambda s, a, n: jnp.sum(jnp.sin(s) * a) + jnp.sum(n**2)
    potential = lambda s: 3.0 * jnp.sum(jnp.cos(2 * s))
    shaped = lambda s, a, n: 2.0 * first(s, a, n) + 0.9 * potential(n) - potential(s)
    arguments = (data, actions, step, keys[4])
    assert dard_distance(first, shaped, *arguments, 0.9) < 1e-5
    # Shaping for another discount is a real change.
    assert dard_distance(first, shaped, *arguments, 0.5) > 0.05


def test_bad_dynamics_are_named():
    broken = P.transition.copy()
    broken[1, 0] *= 2
    with pytest.raises(ValueError, match=r"transition\[1, 0\] is no distribution"):
        dard_canonical_table(P.first, broken, 0.9)
