"""Names: what is known is returned, anything else is answered with the nearest."""

import re

import numpy as np
import pytest

from diffreward.names import choose, nearest

KNOWN = ("umaze", "medium", "large")


@pytest.mark.parametrize("known", [KNOWN, set(KNOWN), dict.fromkeys(KNOWN), list(KNOWN)])
def test_a_known_name_is_returned(known):
    assert choose("maze", "medium", known) == "medium"
    assert choose("maze", np.str_("medium"), known) == "medium"


@pytest.mark.parametrize(
    ("name", "near"), [("umze", "umaze"), ("larg", "large"), ("", "umaze"), ("ß", "umaze")]
)
def test_an_unknown_name_is_answered_with_the_nearest_and_all(name, near):
    message = f"unknown maze {name!r}; did you mean {near!r}? (known: large, medium, umaze)"
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        choose("maze", name, KNOWN)


@pytest.mark.parametrize("name", [None, 3, ["umaze"], {"umaze": 1}, b"umaze"])
def test_anything_but_a_string_is_unknown(name):
    with pytest.raises(ValueError, match="unknown maze .*did you mean"):
        choose("maze", name, dict.fromkeys(KNOWN))


def test_where_nothing_is_known_it_says_so():
    with pytest.raises(ValueError, match="unknown setting 'x'; there is none"):
        choose("setting", "x", ())
    with pytest.raises(ValueError, match="none is known"):
        nearest("x", [])


def test_a_long_name_is_neither_compared_nor_repeated_in_full():
    with pytest.raises(ValueError, match="did you mean") as error:
        choose("maze", "u" * 10**7, KNOWN)
    assert len(str(error.value)) < 200


def test_the_nearest_needs_nothing_in_common():
    assert nearest("dense", ["dens/kernel", "bias"]) == "dens/kernel"
    assert nearest("q", ["umaze"]) == "umaze"
