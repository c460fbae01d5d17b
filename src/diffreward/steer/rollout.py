"""Executing plans in the simulator."""

import numpy as np
from jaxtyping import Float

from diffreward.data import Maze, make_physics, pd_action, step


def follow_plans(
    maze: Maze,
    positions: Float[np.ndarray, "plans horizon 2"],
    start: Float[np.ndarray, "plans 4"],
    frame_skip: int,
) -> Float[np.ndarray, "plans horizon 4"]:
    """Drives the point mass along planned positions with the data's PD controller.

    Args:
        maze: the maze to drive in.
        positions: planned positions, metres; the plan's next position is the target.
        start: initial states x, y, vx, vy.
        frame_skip: physics steps (of 10 ms) per step of the plan.

    Returns:
        The states passed through, the first being ``start``.
    """
    physics = make_physics(maze)
    states = [np.asarray(start, np.float64)]
    for k in range(1, positions.shape[1]):
        action = pd_action(states[-1], positions[:, k])
        states.append(step(physics, states[-1], action, frame_skip))
    return np.stack(states, axis=1)
