"""PointMaze's own MuJoCo model, stepped for many agents at once."""

import contextlib
import io
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffreward.data.maze import Maze
from diffreward.data.simulator import load_mujoco

MAX_SPEED = 5.0
"""PointMaze clips each velocity component to this before every physics step, m/s."""


class Physics(NamedTuple):
    """A compiled maze. Not for use by two threads at once: ``data`` is scratch."""

    model: Any
    """``MjModel``; MuJoCo's own classes are imported late."""
    data: Any
    """``MjData``."""
    runner: Any
    """``rollout.Rollout``."""


def make_physics(maze: Maze) -> Physics:
    """Compiles the model that gymnasium-robotics builds for this layout.

    Raises:
        ValueError: if the simulator cannot be imported.
    """
    mujoco, rollout = load_mujoco(), load_mujoco("mujoco.rollout")
    # Imported here because it prints an unrelated notice, and nothing else needs it.
    with contextlib.redirect_stderr(io.StringIO()):
        from gymnasium_robotics.envs.maze import maze_v4

    ball = Path(maze_v4.__file__).parents[1] / "assets" / "point" / "point.xml"
    # Scaling 1 and height 0.4 as in PointMazeEnv.
    _, xml = maze_v4.Maze.make_maze(str(ball), maze.walls.astype(int).tolist(), 1, 0.4)
    try:
        model = mujoco.MjModel.from_xml_path(xml)
    finally:
        os.unlink(xml)
    return Physics(model, mujoco.MjData(model), rollout.Rollout(nthread=0))


def step(
    physics: Physics, state: np.ndarray, action: np.ndarray, frame_skip: int = 1
) -> np.ndarray:
    """Holds one action per agent for ``frame_skip`` physics steps.

    Args:
        physics: from :func:`make_physics`.
        state: ``(agents, 4)`` float64, x, y, vx, vy.
        action: ``(agents, 2)``, clipped to [-1, 1]; 1 is 100 N on a 4.19 kg ball.
        frame_skip: physics steps of 0.01 s.

    Returns:
        The next state, ``(agents, 4)``.
    """
    model, data, runner = physics
    control = np.clip(action, -1.0, 1.0).astype(np.float64)[:, None]
    full = np.zeros((len(state), 5))  # time, position, velocity
    full[:, 1:] = state
    after = np.empty((len(state), 1, 5))
    for _ in range(frame_skip):
        full[:, 3:] = np.clip(full[:, 3:], -MAX_SPEED, MAX_SPEED)
        runner.rollout(model, [data], full, control, nstep=1, state=after)
        full = after[:, 0].copy()
    return full[:, 1:]


def pd_action(state: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Unclipped action that drives ``(agents, 4)`` states to ``(agents, 2)`` positions.

    D4RL's waypoint controller: 3 per metre, and sqrt(0.3) per m/s of damping.
    """
    return 3.0 * (target - state[:, :2]) - 0.3**0.5 * state[:, 2:]
