from typing import Any

import gymnasium
import gymnasium_robotics
import numpy as np
import pytest

from diffreward.data import (
    MAZE_NAMES,
    make_maze,
    make_physics,
    sample_free,
    step,
    true_reward,
)

gymnasium.register_envs(gymnasium_robotics)
IDS = dict(zip(MAZE_NAMES, ("Open", "UMaze", "Medium", "Large"), strict=True))


@pytest.mark.parametrize("name", MAZE_NAMES)
def test_batched_steps_equal_the_gymnasium_environment(name):
    """Long random pushes: the agents reach full speed and are pressed against walls."""
    steps, agents = 250, 3
    rng = np.random.default_rng(0)
    actions = np.repeat(rng.uniform(-1.5, 1.5, (steps // 25, agents, 2)), 25, axis=0)
    expected, rewards, goals = [], [], []
    for kind in ("sparse", "dense", "sparse"):
        env = gymnasium.make(
            f"PointMaze_{IDS[name]}-v3", disable_env_checker=True, reward_type=kind
        )
        inner: Any = env.unwrapped
        observation, _ = env.reset(seed=len(expected))
        states, paid = [observation["observation"]], []
        for action in actions[:, len(expected)]:
            # The environment warns about actions out of range; it clips them itself.
            observation, reward, *_ = inner.step(action)
            states.append(observation["observation"])
            paid.append(reward)
        expected.append(states)
        rewards.append(paid)
        goals.append(inner.goal)
        env.close()
    expected = np.swapaxes(expected, 0, 1)
    physics, states = make_physics(make_maze(name)), [expected[0]]
    for action in actions:
        states.append(step(physics, states[-1], action))
    np.testing.assert_allclose(states, expected, atol=1e-6)
    assert np.abs(expected[..., 2:]).max() > 5  # the velocity clip was at work
    for n, kind in enumerate(("sparse", "dense", "sparse")):
        paid = true_reward(expected[1:, n], goals[n], kind)
        np.testing.assert_allclose(paid, rewards[n], rtol=1e-6)


def test_frame_skip_holds_the_action():
    maze = make_maze("medium")
    rng = np.random.default_rng(0)
    state = np.pad(sample_free(maze, rng, 20), ((0, 0), (0, 2)))
    state[:, 2:] = rng.uniform(-6, 6, (20, 2))
    action = rng.uniform(-1, 1, (20, 2))
    physics, one_by_one = make_physics(maze), state
    for _ in range(5):
        one_by_one = step(physics, one_by_one, action)
    before = state.copy()
    np.testing.assert_array_equal(step(physics, state, action, 5), one_by_one)
    np.testing.assert_array_equal(state, before)


def test_free_flight_follows_the_closed_form():
    # Implicit damping: (m + h c) v' = m v + h F, then x' = x + h v'.
    mass, damping, h, force = 4 / 3 * np.pi * 0.1**3 * 1000, 1.0, 0.01, 100.0
    state, action = np.array([[0.1, 0.2, 1.0, -2.0]]), np.array([[0.5, -0.25]])
    velocity = (mass * state[:, 2:] + h * force * action) / (mass + h * damping)
    expected = np.concatenate([state[:, :2] + h * velocity, velocity], axis=1)
    physics = make_physics(make_maze("open"))
    np.testing.assert_allclose(step(physics, state, action), expected, rtol=1e-12)
