"""Maze trajectories: a waypoint planner with a PD controller, many agents at once.

The base wanders from random starts to random goals; the expert of goal n walks from
random starts to that goal.
"""

from typing import NamedTuple

import numpy as np

from diffreward.data import maze as mz
from diffreward.data.maze_physics import Physics, pd_action, step

CLEARANCE = mz.RADIUS + 0.02
"""Episodes that come closer to a wall are discarded, metres: the ball never touches one.

D4RL's generator asks for 0.26, measured in coordinates that are 0.2 off the walls. In
true coordinates, with action noise 0.3 and 16 steps held at the goal, that rule would
discard half of some datasets; this one discards under 1 %.
"""

_WAYPOINT_RADIUS = 0.3
_WAYPOINT_JITTER = 0.5 - mz.MARGIN
_ARRIVED_DISTANCE, _ARRIVED_SPEED = 0.1, 0.5


class Recipe(NamedTuple):
    """How episodes are collected."""

    frame_skip: int = 1
    """Physics steps of 0.01 s for which one action is held."""
    action_noise: float = 0.0
    """Standard deviation of noise added to the action before it is clipped."""
    hold: int = 0
    """Steps for which an episode goes on after its agent has arrived."""
    max_steps: int = 1000
    """Steps after which an episode counts as lost."""


class MazeRollouts(NamedTuple):
    """Episodes of one batch of agents, side by side."""

    states: np.ndarray
    """``(agents, max_steps + 1, 4)`` float32."""
    actions: np.ndarray
    """``(agents, max_steps, 2)`` float32, as executed."""
    goals: np.ndarray
    """``(agents, 2)`` float64."""
    lengths: np.ndarray
    """``(agents,)`` steps of each kept episode; 0 for a discarded one."""


def collect(
    maze: mz.Maze,
    physics: Physics,
    rng: np.random.Generator,
    agents: int,
    goal: np.ndarray | None,
    recipe: Recipe,
) -> MazeRollouts:
    """Walks ``agents`` episodes to their ends.

    An episode is kept if it arrives within ``max_steps`` and never comes closer to a
    wall than ``CLEARANCE``. It arrives within 0.1 m of its goal at less than 0.5 m/s,
    and then stays for ``hold`` more steps.
    """
    start = mz.sample_free(maze, rng, agents)
    if goal is None:
        goals = mz.sample_free(maze, rng, agents)
    else:
        goals = np.broadcast_to(goal, (agents, 2))
    waypoints, final = plan_route(maze, rng, start, goals)
    states = np.zeros((agents, recipe.max_steps + 1, 4), np.float32)
    actions = np.zeros((agents, recipe.max_steps, 2), np.float32)
    states[:, 0, :2] = start
    lengths = np.zeros(agents, int)
    # Agents leave these arrays when their episode is over.
    agent, state = np.arange(agents), np.pad(start, ((0, 0), (0, 2)))
    current, left = np.zeros(agents, int), np.full(agents, -1)
    for i in range(recipe.max_steps):
        action = pd_action(state, waypoints[agent, current])
        action += recipe.action_noise * rng.standard_normal(action.shape)
        # Stored precision, so that replaying the file replays the episode.
        action = action.clip(-1, 1).astype(np.float32)
        state = step(physics, state, action, recipe.frame_skip)
        states[agent, i + 1], actions[agent, i] = state, action

        near = np.linalg.norm(waypoints[agent, current] - state[:, :2], axis=1)
        current = np.minimum(current + (near < _WAYPOINT_RADIUS), final[agent])
        distance = np.linalg.norm(goals[agent] - state[:, :2], axis=1)
        speed = np.linalg.norm(state[:, 2:], axis=1)
        arrived = (distance < _ARRIVED_DISTANCE) & (speed < _ARRIVED_SPEED)
        left = np.where(left < 0, np.where(arrived, recipe.hold, -1), left - 1)
        scraped = mz.wall_distance(maze, state[:, :2]) < CLEARANCE
        done = (left == 0) & ~scraped
        lengths[agent[done]] = i + 1
        on = ~done & ~scraped
        agent, state, current, left = agent[on], state[on], current[on], left[on]
        if not agent.size:
            break
    return MazeRollouts(states, actions, goals, lengths)


def plan_route(
    maze: mz.Maze, rng: np.random.Generator, start: np.ndarray, goals: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Waypoints ``(agents, longest, 2)`` and the index of each agent's last one.

    Cell centres along a shortest path, all moved by one random offset per plan, and the
    goal itself last. The open maze has nothing to walk around: the goal only.
    """
    agents = len(start)
    jitter = rng.uniform(-_WAYPOINT_JITTER, _WAYPOINT_JITTER, (agents, 1, 2))
    if maze.name == "open":
        return goals[:, None], np.zeros(agents, int)
    columns = maze.walls.shape[1]
    table = mz.next_cells(maze)
    here = mz.xy_to_cell(maze, start) @ [columns, 1]
    target = mz.xy_to_cell(maze, goals) @ [columns, 1]
    path = []
    while not path or (here != target).any():
        here = np.where(here == target, here, table[target, here])
        path.append(here)
    cells = np.stack(path, axis=1)
    final = np.argmax(cells == target[:, None], axis=1)
    waypoints = mz.cell_to_xy(maze, np.stack(np.divmod(cells, columns), -1)) + jitter
    waypoints[np.arange(agents), final] = goals
    return waypoints, final
