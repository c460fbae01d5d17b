"""When episodes fail, on episodes made by hand."""

import numpy as np

from diffreward.measures import steps_to_failure, survival


def test_an_episode_fails_when_it_earns_too_little_for_good():
    rewards = np.zeros((5, 100))
    rewards[0] = 2.0  # never fails
    rewards[1, :40] = 2.0  # stops earning
    rewards[2, :40], rewards[2, 60:80] = 2.0, 2.0  # recovers once
    rewards[3] = 0.5  # never earns enough
    rewards[4] = 2.0  # is over after 30 steps, whatever stands behind
    lengths = np.array([100, 100, 100, 100, 30])
    times = steps_to_failure(rewards, lengths, 1.0, window=10)
    # Five steps without reward halve the mean of ten.
    assert list(times) == [100, 45, 85, 0, 30]


def test_survival_is_the_share_that_has_not_failed():
    found = survival(np.array([0, 2, 2, 4]), 4)
    np.testing.assert_allclose(found, [1.0, 0.75, 0.75, 0.25, 0.25])
