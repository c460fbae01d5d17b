"""Data: readers, windows and batches, the mazes, and laws with known answers."""

from diffreward.data.batches import (
    Batch,
    draw,
    fits_on_device,
    host_batches,
)
from diffreward.data.d4rl import read_hdf5, write_hdf5
from diffreward.data.episodes import Episodes, concatenate, select, transitions
from diffreward.data.maze import (
    GOAL_RADIUS,
    MARGIN,
    MAZE_NAMES,
    RADIUS,
    Maze,
    cell_to_xy,
    d4rl_to_xy,
    make_geodesic,
    make_maze,
    next_cells,
    sample_free,
    true_reward,
    wall_distance,
    xy_to_cell,
)
from diffreward.data.maze_dataset import generate, load
from diffreward.data.maze_generate import CLEARANCE, Recipe, Rollouts, collect, plan
from diffreward.data.maze_physics import Physics, make_physics, pd_action, step
from diffreward.data.normaliser import (
    Normaliser,
    fit_gaussian,
    fit_limits,
    normalise,
    unnormalise,
)
from diffreward.data.splits import SPLITS, split_episodes
from diffreward.data.windows import (
    MEMBER_AXES,
    Windows,
    gather,
    make_windows,
    stack_windows,
)

__all__ = [
    "CLEARANCE",
    "GOAL_RADIUS",
    "MARGIN",
    "MAZE_NAMES",
    "MEMBER_AXES",
    "RADIUS",
    "SPLITS",
    "Batch",
    "Episodes",
    "Maze",
    "Normaliser",
    "Physics",
    "Recipe",
    "Rollouts",
    "Windows",
    "cell_to_xy",
    "collect",
    "concatenate",
    "d4rl_to_xy",
    "draw",
    "fit_gaussian",
    "fit_limits",
    "fits_on_device",
    "gather",
    "generate",
    "host_batches",
    "load",
    "make_geodesic",
    "make_maze",
    "make_physics",
    "make_windows",
    "next_cells",
    "normalise",
    "plan",
    "pd_action",
    "read_hdf5",
    "sample_free",
    "select",
    "split_episodes",
    "stack_windows",
    "step",
    "transitions",
    "true_reward",
    "unnormalise",
    "wall_distance",
    "write_hdf5",
    "xy_to_cell",
]
