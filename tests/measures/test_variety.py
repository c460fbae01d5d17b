"""Distance, precision and recall of sets, against laws whose answers are known."""

import numpy as np
import pytest

from diffreward.measures import halves, kernel_distance, precision_recall


def normal(count: int, mean: float = 0.0, deviation: float = 1.0, seed: int = 0):
    return np.random.default_rng(seed).normal(mean, deviation, (count, 2))


def test_the_kernel_distance_of_two_means_is_that_of_the_formula():
    """Points at -1 and 1 against points at 2, one feature: sums by hand."""
    x, y = np.array([[-1.0], [1.0]]), np.array([[2.0], [2.0]])
    k = lambda a, b: (a * b + 1) ** 3
    expected = k(-1, 1) + k(2, 2) - 2 * (k(-1, 2) + k(1, 2)) / 2
    assert kernel_distance(x, y) == pytest.approx(expected)
    assert kernel_distance(y, x) == pytest.approx(expected)


def test_the_kernel_distance_of_equal_laws_is_zero_on_average():
    found = [
        kernel_distance(normal(40, seed=i), normal(60, seed=1000 + i)) for i in range(400)
    ]
    assert abs(np.mean(found)) < 3 * np.std(found) / 20
    assert np.min(found) < 0  # unbiased
    assert kernel_distance(normal(40), normal(60, 1.0, seed=1)) > 1


def test_precision_and_recall_see_different_faults():
    both = np.concatenate([normal(100, -10.0), normal(100, 10.0, seed=1)])
    one = normal(200, 10.0, seed=2)
    lost = precision_recall(both, one)
    assert lost.precision > 0.8  # what is made is real
    assert lost.recall == pytest.approx(0.5, abs=0.06)  # half of the modes
    added = precision_recall(one, both)
    assert added.precision == pytest.approx(0.5, abs=0.06)
    assert added.recall > 0.8
    # By hand: balls of radius 1 around 0, 1, 2, and of radius 3 around 4 and 7.
    line = lambda *x: np.array(x, float)[:, None]
    assert precision_recall(line(0, 1, 2), line(4, 7), neighbours=1) == (0.0, 2 / 3)


def test_halves_cover_the_truth_as_often_as_they_say():
    """Of a mean, whose truth is known: 95 % within what 200 trials can tell."""
    truth, hits = 3.0, 0
    for i in range(200):
        found = halves(lambda x: float(x.mean()), normal(60, truth, seed=i)[:, 0], seed=i)
        hits += found.low <= truth <= found.high
    assert 0.90 <= hits / 200 <= 0.99


def test_halves_deviate_to_the_other_side():
    """Of twelve rows both marked ones are in a half with probability 5/22: by hand."""
    rows = np.array([1, 1] + [0] * 10)
    found = halves(lambda x: float(x.sum() == 2), rows, resamples=2000)
    assert found.value == 1
    assert found.low == pytest.approx(1 - (1 - 5 / 22), abs=0.03)
    assert found.high == pytest.approx(1 + 5 / 22, abs=0.03)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: kernel_distance(normal(1), normal(5)), "1 and 5 rows; 2 of each"),
        (lambda: precision_recall(normal(3), normal(9)), "3 and 9 rows; 4 of each"),
        (
            lambda: precision_recall(normal(9), normal(9)[:, :1]),
            "features of 2 and 1 numbers",
        ),
        (lambda: halves(np.mean, np.ones(1)), "two rows or more"),
    ],
)
def test_too_little_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
