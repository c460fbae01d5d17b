"""EPIC against loops over its definition, and sampled against exact."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.measures import (
    Coverage,
    draw_coverage,
    epic_canonical,
    epic_canonical_table,
    epic_distance,
    epic_distance_table,
)
from diffreward.measures.canonical import Transitions
from tests.measures import problems

P = problems.draw(3, states=4, actions=3)
DS, DA = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.5, 0.2, 0.3])
WEIGHTS = {"state_weights": DS, "action_weights": DA}


def by_loops(r, discount):
    out = np.zeros_like(r)
    states, actions = range(len(DS)), range(len(DA))
    for s, a, n in product(states, actions, states):
        out[s, a, n] = r[s, a, n]
        for x, b, y in product(states, actions, states):
            weight = DS[x] * DA[b] * DS[y]
            shaping = discount * r[n, b, y] - r[s, b, y] - discount * r[x, b, y]
            out[s, a, n] += weight * shaping
    return out


def test_canonical_form_by_loops():
    got = epic_canonical_table(P.first, P.discount, **WEIGHTS)
    np.testing.assert_allclose(got, by_loops(P.first, P.discount), atol=1e-12)


def test_distance_is_pearsons():
    w = np.einsum("s,a,n->san", DS, DA, DS).ravel()
    forms = [by_loops(r, P.discount).ravel() for r in (P.first, P.second)]
    c = np.cov(np.stack(forms), aweights=w, ddof=0)
    expected = np.sqrt((1 - c[0, 1] / np.sqrt(c[0, 0] * c[1, 1])) / 2)
    got = epic_distance_table(P.first, P.second, P.discount, **WEIGHTS)
    assert got == pytest.approx(expected)
    # Other weights: the coverage of the comparison is a separate argument.
    got = epic_distance_table(P.first, P.second, P.discount, coverage=P.transition)
    assert got != pytest.approx(expected, abs=1e-3)


def test_sampled_over_everything_is_exact():
    """With each state, action pair once, means over draws are the exact means."""
    # The rows of a coverage pair an action with a next state: all pairs, once.
    coverage = Coverage(*problems.every_pair(4, 3))
    rows = problems.every_transition(P.first)
    r, q = problems.as_function(P.first), problems.as_function(P.second)
    got = epic_canonical(r, rows, coverage, P.discount, batch_size=5)
    expected = epic_canonical_table(P.first, P.discount)
    np.testing.assert_allclose(got.reshape(4, 3, 4), expected, atol=1e-5)
    distance = epic_distance(r, q, rows, coverage, P.discount)
    exact = epic_distance_table(P.first, P.second, P.discount)
    assert distance == pytest.approx(exact, abs=1e-5)


def test_sampled_coverage_converges(key):
    """The form at fixed transitions, within five standard errors of its draws."""
    rows, num = problems.every_transition(P.first), 2000
    picks = jax.random.choice(key, 48, (48,))
    data = Transitions(*(x[picks] for x in rows))
    frequency = np.bincount(np.asarray(data.state), minlength=4) / 48
    actions = np.bincount(np.asarray(data.action), minlength=3) / 48
    exact = epic_canonical_table(
        P.first, P.discount, state_weights=frequency, action_weights=actions
    )
    coverage = draw_coverage(key, data, num)
    got = epic_canonical(problems.as_function(P.first), rows, coverage, P.discount)
    # Three means of at most this spread enter.
    error = 3 * np.ptp(P.first) / 2 / num**0.5
    np.testing.assert_allclose(got.reshape(4, 3, 4), exact, atol=5 * error)


def test_continuous_shaping_cancels_for_any_draws(key):
    keys = jax.random.split(key, 5)
    data = Transitions(*(jax.random.normal(k, (40, 2)) for k in keys[:3]))
    coverage = Coverage(*(jax.random.normal(k, (30, 2)) for k in keys[3:]))
    first = lambda s, a, n: jnp.sum(jnp.sin(s) * a) + jnp.sum(n**2)
    potential = lambda s: 3.0 * jnp.sum(jnp.cos(2 * s))
    shaped = lambda s, a, n: 2.0 * first(s, a, n) + 0.9 * potential(n) - potential(s)
    assert epic_distance(first, shaped, data, coverage, 0.9) < 1e-5
    minus = lambda s, a, n: -first(s, a, n)
    assert epic_distance(first, minus, data, coverage, 0.9) == pytest.approx(1)
    # Shaping for another discount is a real change.
    assert epic_distance(first, shaped, data, coverage, 0.5) > 0.05
    only_shaping = lambda s, a, n: 0.9 * potential(n) - potential(s)
    half = epic_distance(first, only_shaping, data, coverage, 0.9)
    assert half == pytest.approx(0.5)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"discount must be in \[0, 1\), got 1"):
        epic_distance_table(P.first, P.second, 1.0)
    with pytest.raises(ValueError, match="action_weights must be 3 non-negative"):
        epic_canonical_table(P.first, 0.9, action_weights=-DA)
