"""Data: readers, windows and batches, the mazes, and laws with known answers."""

from diffreward.data.batches import (
    Batch,
    draw,
    fits_on_device,
    host_batches,
)
from diffreward.data.d4rl import read_hdf5, write_hdf5
from diffreward.data.episodes import (
    Episodes,
    concatenate,
    episode_returns,
    first_transitions,
    select,
    transitions,
)
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
from diffreward.data.minari import load_minari
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
from diffreward.data.registry import (
    D4RLDataset,
    check_task,
    d4rl_registry,
    load_d4rl,
    parse_source,
)
from diffreward.data.snapshots import collect_again, read_index
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
    "D4RLDataset",
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
    "check_task",
    "collect",
    "collect_again",
    "concatenate",
    "d4rl_registry",
    "d4rl_to_xy",
    "draw",
    "episode_returns",
    "first_transitions",
    "fit_gaussian",
    "fit_limits",
    "fits_on_device",
    "gather",
    "generate",
    "host_batches",
    "load",
    "load_d4rl",
    "load_minari",
    "load_policy",
    "make_geodesic",
    "make_locomotion",
    "make_maze",
    "make_physics",
    "make_windows",
    "next_cells",
    "normalise",
    "normalised_score",
    "parse_source",
    "pd_action",
    "plan",
    "read_hdf5",
    "read_index",
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
