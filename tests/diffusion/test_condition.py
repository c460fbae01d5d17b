"""Pinning: what is held, and which entries count."""

import jax.numpy as jnp
import numpy as np

from diffreward.diffusion import Condition, free_entries, hold, pin

PINNED = jnp.array([True, False, False])
MASK = jnp.array([True, True, False])


def test_nothing_pinned_is_no_condition():
    assert hold(None, jnp.zeros(3)) is None
    np.testing.assert_array_equal(pin(jnp.ones(3), hold(None, jnp.zeros(3))), np.ones(3))


def test_pinned_entries_are_held_at_the_values():
    condition = hold(PINNED, jnp.arange(3.0) + 5)
    assert isinstance(condition, Condition)
    np.testing.assert_array_equal(pin(jnp.ones(3), condition), [5, 1, 1])


def test_entries_count_if_asked_for_and_not_pinned():
    for pinned, mask, wanted in (
        (None, None, [True, True, True]),
        (PINNED, None, [False, True, True]),
        (None, MASK, [True, True, False]),
        (PINNED, MASK, [False, True, False]),
    ):
        np.testing.assert_array_equal(free_entries((3,), pinned, mask), wanted)
