"""Samples and their contexts in one vector: nothing is mixed up, and odd ones are named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.data import Normaliser
from diffreward.diffusion import context_layout

SHAPE, PARTS = (2, 3), {"goal": (2,), "label": (3,), "time": ()}
LAYOUT = context_layout(SHAPE, PARTS)
RNG = np.random.default_rng(0)


def drawn(rows):
    x = RNG.normal(size=(*rows, *SHAPE)).astype(np.float32)
    context = {k: RNG.normal(size=(*rows, *s)).astype(np.float32) for k, s in PARTS.items()}
    return x, context


@pytest.mark.parametrize("rows", [(), (5,), (2, 4)])
def test_a_vector_is_unpacked_as_it_was_packed(rows):
    x, context = drawn(rows)
    packed = LAYOUT.pack(x, context)
    assert packed.shape == (*rows, LAYOUT.size) == (*rows, 6 + 2 + 3 + 1)
    back, told = LAYOUT.unpack(packed)
    np.testing.assert_array_equal(back, x)
    assert list(told) == list(PARTS)
    for name, value in context.items():
        np.testing.assert_array_equal(told[name], value)


def test_the_context_is_pinned_and_the_sample_is_not():
    own = jnp.zeros(SHAPE, bool).at[0, 1].set(True)
    assert LAYOUT.pinned().sum() == 6
    assert LAYOUT.own_pinned(LAYOUT.pinned()) is None
    every = LAYOUT.pinned(own)
    assert every.sum() == 7
    np.testing.assert_array_equal(LAYOUT.own_pinned(every), own)
    np.testing.assert_array_equal(every[6:], True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"goal": None}, "lacks 'goal'; it is goal "),
        ({"colour": np.zeros(2)}, "has an unknown 'colour'"),
        ({"goal": np.zeros(3)}, r"context 'goal' has shape \(3,\), must have \(2,\)"),
        ({"goal": np.zeros((1, 2))}, r"context 'goal' has shape \(1, 2\)"),
    ],
)
def test_a_wrong_context_is_named(change, words):
    x, context = drawn(())
    wrong = {k: v for k, v in {**context, **change}.items() if v is not None}
    with pytest.raises(ValueError, match=words):
        LAYOUT.pack(x, wrong)


def test_a_wrong_sample_is_named():
    _, context = drawn(())
    with pytest.raises(ValueError, match=r"the sample has shape \(3, 2\)"):
        LAYOUT.pack(np.zeros((3, 2)), context)


def test_rows_of_contexts_are_as_many_as_samples():
    x, context = drawn((4,))
    context["goal"] = context["goal"][:3]
    with pytest.raises(ValueError, match=r"'goal' has shape \(3, 2\), must have \(4, 2\)"):
        LAYOUT.pack(x, context)


@pytest.mark.parametrize("name", ["x", "two words", "größe", "1st", "", "a" * 65])
def test_a_part_is_named_by_a_word(name):
    with pytest.raises(ValueError, match="named by a word"):
        context_layout(SHAPE, {name: (2,)})


def test_no_parts_and_coordinates_of_none_are_refused():
    with pytest.raises(ValueError, match="one part or more"):
        context_layout(SHAPE, {})
    with pytest.raises(ValueError, match="coordinates of 'other'"):
        context_layout(SHAPE, {"goal": (2,)}, other=Normaliser(np.zeros(2), np.ones(2)))


def test_models_are_told_contexts_in_their_own_units():
    goal = Normaliser(np.array([10.0, -4.0]), np.array([2.0, 0.5]))
    layout = context_layout((3,), {"goal": (2,)}, goal=goal)
    x, told = np.array([1.0, 2.0, 3.0]), np.array([14.0, -5.0])
    packed = layout.normalised(layout.pack(x, {"goal": told}))
    np.testing.assert_allclose(packed, [1, 2, 3, 2, -2], atol=1e-6)
    asked, alone = layout.ask(lambda context: context["goal"], packed)
    np.testing.assert_allclose(asked, told, atol=1e-5)
    np.testing.assert_allclose(alone, x)


def test_own_coordinates_lie_along_the_last_axis_of_the_sample():
    own = Normaliser(np.array([1.0, 2.0, 3.0]), np.array([1.0, 10.0, 100.0]))
    found = LAYOUT.normaliser(own)
    assert LAYOUT.normaliser() is None
    np.testing.assert_array_equal(found.scale[:6], [1, 10, 100] * 2)
    np.testing.assert_array_equal(found.shift[:6], [1, 2, 3] * 2)
    np.testing.assert_array_equal(found.scale[6:], 1)
    np.testing.assert_array_equal(found.shift[6:], 0)


def test_a_function_under_a_context_is_one_of_the_sample():
    x, context = drawn(())
    seen = jax.jit(LAYOUT.under(lambda packed, t: packed * t, LAYOUT.blank(context)))
    np.testing.assert_allclose(
        seen(x, jnp.float32(2)), 2 * LAYOUT.pack(x, context), rtol=1e-6
    )
    np.testing.assert_array_equal(LAYOUT.alone(LAYOUT.pack(x, context)), x)
