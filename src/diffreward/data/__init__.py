"""Data: readers, windows and batches, the mazes, and laws with known answers."""

from diffreward.data.arrays import read_arrays, write_array, write_arrays
from diffreward.data.batches import (
    Batch,
    draw,
    fits_on_device,
    host_batches,
)
from diffreward.data.d4rl import read_hdf5
from diffreward.data.digits import LabelledImages, load_digits, select_images
from diffreward.data.episodes import (
    Episodes,
    concatenate,
    episode_returns,
    first_transitions,
    select,
    transitions,
)
from diffreward.data.hdf5 import write_hdf5
from diffreward.data.locomotion import (
    LOCOMOTION,
    LocomotionTask,
    Recorder,
    Stream,
    act_in,
    body_segments,
    episodes_of,
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
from diffreward.data.ogbench import load_ogbench, read_ogbench
from diffreward.data.policies import (
    SquashedGaussianPolicy,
    load_policy,
    save_policy,
)
from diffreward.data.prompts import Prompts, read_prompts, slices
from diffreward.data.registry import (
    D4RLDataset,
    check_task,
    d4rl_registry,
    load_d4rl,
    parse_source,
    read_file,
    source_task,
)
from diffreward.data.shards import Shards, open_shards, read_shard, write_shards
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
    "LabelledImages",
    "LocomotionTask",
    "Maze",
    "Normaliser",
    "Physics",
    "Prompts",
    "Recipe",
    "Recorder",
    "Rollouts",
    "Shards",
    "SquashedGaussianPolicy",
    "Stream",
    "Windows",
    "act_in",
    "body_segments",
    "cell_to_xy",
    "check_task",
    "collect",
    "collect_again",
    "concatenate",
    "d4rl_registry",
    "d4rl_to_xy",
    "draw",
    "episode_returns",
    "episodes_of",
    "first_transitions",
    "fit_gaussian",
    "fit_limits",
    "fits_on_device",
    "gather",
    "generate",
    "host_batches",
    "load",
    "load_d4rl",
    "load_digits",
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
    "open_shards",
    "parse_source",
    "pd_action",
    "plan",
    "read_hdf5",
    "read_index",
    "read_prompts",
    "read_shard",
    "sample_free",
    "save_policy",
    "select",
    "select_images",
    "slices",
    "source_task",
    "split_episodes",
    "stack_windows",
    "step",
    "transitions",
    "true_reward",
    "unnormalise",
    "wall_distance",
    "write_hdf5",
    "write_shards",
    "xy_to_cell",
    "load_ogbench",
    "read_arrays",
    "read_ogbench",
    "write_array",
    "write_arrays",
    "read_file",
]
