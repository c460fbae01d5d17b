"""Data: readers, windows and batches, the mazes, and laws with known answers."""

from diffreward.data.batches import (
    Batch,
    draw,
    fits_on_device,
    host_batches,
)
from diffreward.data.d4rl import read_hdf5, write_hdf5
from diffreward.data.episodes import Episodes, concatenate, select, transitions
from diffreward.data.locomotion import (
    LOCOMOTION,
    LocomotionTask,
    Recorder,
    Stream,
    act_in,
    make_locomotion,
    normalised_score,
)
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
from diffreward.data.policies import (
    SquashedGaussianPolicy,
    load_policy,
    save_policy,
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
    "LOCOMOTION",
    "MARGIN",
    "MAZE_NAMES",
    "MEMBER_AXES",
    "RADIUS",
    "SPLITS",
    "Batch",
    "Episodes",
    "LocomotionTask",
    "Maze",
    "Normaliser",
    "Physics",
    "Recipe",
    "Recorder",
    "Rollouts",
    "SquashedGaussianPolicy",
    "Stream",
    "Windows",
    "act_in",
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
    "load_policy",
    "make_geodesic",
    "make_locomotion",
    "make_maze",
    "make_physics",
    "make_windows",
    "next_cells",
    "normalise",
    "normalised_score",
    "pd_action",
    "plan",
    "read_hdf5",
    "sample_free",
    "save_policy",
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
