import jax
import jax.numpy as jnp
import numpy as np

from diffreward.data import make_maze
from diffreward.diffusion import Condition, cosine, pinned_observations, sample
from diffreward.steer import follow_plans, plan

SCHEDULE = cosine(8)


def eps_fn(x_t, t):
    return 0.5 * x_t + 0.1 * t.astype(jnp.float32)


def test_a_batch_of_plans_is_a_loop_of_samples(key):
    known = jax.random.normal(key, (3, 5, 6))
    pinned = pinned_observations(5, 2, 4)
    got = plan(eps_fn, SCHEDULE, key, known, pinned)
    draw = jax.jit(
        lambda k, x: sample(eps_fn, SCHEDULE, k, (5, 6), condition=Condition(pinned, x))
    )
    for i, k in enumerate(jax.random.split(key, 3)):
        np.testing.assert_allclose(got[i], draw(k, known[i]), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(got[:, 0, 2:], known[:, 0, 2:])
    assert not np.allclose(got[:, 1, 2:], known[:, 1, 2:])


def test_fewer_evaluations_still_hold_the_start(key):
    known = jax.random.normal(key, (2, 5, 6))
    pinned = pinned_observations(5, 2, 4)
    got = plan(eps_fn, SCHEDULE, key, known, pinned, num_evaluations=3)
    np.testing.assert_array_equal(got[:, 0, 2:], known[:, 0, 2:])


def test_following_a_feasible_plan_ends_at_its_end():
    maze = make_maze("umaze")
    along = np.linspace([-1.0, 1.0], [1.0, 1.0], 30)  # the upper corridor
    positions = np.concatenate([along, np.repeat(along[-1:], 10, 0)])[None]
    states = follow_plans(maze, positions, np.array([[-1.0, 1.0, 0, 0]]), frame_skip=6)
    assert states.shape == (1, 40, 4)
    np.testing.assert_array_equal(states[0, 0], [-1, 1, 0, 0])
    np.testing.assert_allclose(states[0, -1, :2], along[-1], atol=0.03)


def test_a_plan_through_a_wall_stops_at_the_wall():
    maze = make_maze("umaze")
    through = np.linspace([-1.0, 1.0], [-1.0, -1.0], 40)[None]
    states = follow_plans(maze, through, np.array([[-1.0, 1.0, 0, 0]]), frame_skip=6)
    # The wall's face is at y = 0.5; the ball's radius keeps its centre 0.1 away.
    assert states[0, :, 1].min() > 0.55
