"""The training loop of every stage; it knows no method, only tasks."""

from diffreward.train.checkpoint import CheckpointMismatch, load_params
from diffreward.train.estimate import estimate
from diffreward.train.loop import Diverged, optimise
from diffreward.train.optimiser import learning_rate_schedule, make_optimiser
from diffreward.train.record import read_rows
from diffreward.train.settings import Loop, Members, Numerics, Placement
from diffreward.train.sharding import cut_shardings, make_mesh, state_shardings
from diffreward.train.state import Task, TrainState, init_state
from diffreward.train.step import make_dispatch, make_train_step

__all__ = [
    "CheckpointMismatch",
    "Diverged",
    "Loop",
    "Members",
    "Numerics",
    "Placement",
    "Task",
    "TrainState",
    "cut_shardings",
    "estimate",
    "init_state",
    "learning_rate_schedule",
    "load_params",
    "make_dispatch",
    "make_mesh",
    "make_optimiser",
    "make_train_step",
    "optimise",
    "read_rows",
    "state_shardings",
]
