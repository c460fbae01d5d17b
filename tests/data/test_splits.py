import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffreward.data import split_episodes


@settings(max_examples=50, deadline=None)
@given(num_episodes=st.integers(10, 500), seed=st.integers(0, 2**31))
def test_parts_are_disjoint_exhaustive_and_of_the_asked_size(num_episodes, seed):
    parts = split_episodes(num_episodes, seed)
    assert list(parts) == ["train", "val", "test"]
    everything = np.concatenate(list(parts.values()))
    np.testing.assert_array_equal(np.sort(everything), np.arange(num_episodes))
    for part, fraction in zip(parts.values(), (0.8, 0.1, 0.1), strict=True):
        assert abs(len(part) - fraction * num_episodes) <= 1


def test_the_seed_decides():
    a, b, c = (split_episodes(100, seed)["test"] for seed in (3, 3, 4))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


@pytest.mark.parametrize(
    ("num_episodes", "fractions", "message"),
    [
        (3, (0.8, 0.1, 0.1), "3 episodes leave a part"),
        (100, (0.8, 0.1, 0.2), "sum to 1"),
        (100, (0.9, 0.1), "three positive"),
        (100, (0.9, 0.1, 0.0), "three positive"),
    ],
)
def test_bad_requests(num_episodes, fractions, message):
    with pytest.raises(ValueError, match=message):
        split_episodes(num_episodes, 0, fractions)
