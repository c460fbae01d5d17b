"""Pairs over single states, or a few in a row: their reward is a function of a state.

The models, the data and the training of a maze run, without actions and conditions: the
reward is the log ratio of how often expert and base are where they are.
"""

from typing import Any, NamedTuple

from flax import linen as nn

from configs.common import ConfigDict
from diffreward import data as d
from diffreward import report, train
from diffreward.types import Params
from experiments import baselines, stages, validation
from experiments.build import build_denoiser, build_reward, build_scalar
from experiments.maze2d import data
from experiments.maze2d import run as maze2d
from experiments.maze2d.build import ACT, OBS, Prepared, Run

SECTIONS = ("model", "base", "experts", "start", "rewards")
"""Of the maze run's config, that ``states`` has its own of."""


class States(NamedTuple):
    """Models of states and their rewards, one of each goal."""

    run: Run
    prepared: Prepared
    """Episodes without actions."""
    base: Params
    rewards: Params
    """Stacked: member = goal * seeds + seed."""
    discriminator: nn.Module
    discriminators: Params
    """Stacked by goal."""


def build_run(config: ConfigDict, run: Run) -> Run:
    """The maze run of ``config.states``, in a folder of its own; data are the maze's."""
    own = config.maze2d.copy_and_resolve_references()
    with own.unlocked():
        for name in SECTIONS:
            own[name] = config.states[name]
    model = build_denoiser(own.model, act_dim=0, obs_dim=OBS)
    reward = build_reward(own.rewards, model)
    return run._replace(
        config=own,
        workdir=run.workdir / "states",
        model=model,
        reward=reward,
        data_folder=run.folder("data"),
    )


def without_actions(prepared: Prepared) -> Prepared:
    """The same episodes as states alone."""
    bare = lambda episodes: episodes._replace(actions=episodes.actions[:, :0])
    every = lambda splits: {name: bare(episodes) for name, episodes in splits.items()}
    shift, scale = prepared.normaliser
    return Prepared(
        d.Normaliser(shift[ACT:], scale[ACT:]),
        every(prepared.base),
        [every(splits) for splits in prepared.experts],
    )


def train_states(config: ConfigDict, maze_run: Run, maze_data: Prepared) -> States:
    """Trains what is not there yet: base, experts, rewards, discriminators of states."""
    run, prepared = build_run(config, maze_run), without_actions(maze_data)
    base = maze2d.train_base(run, prepared)
    experts = maze2d.train_experts(run, prepared, base)
    rewards = maze2d.train_rewards(run, prepared, base, experts, "rewards")
    network = build_scalar(config.states.discriminator)
    found = train_discriminators(run, prepared, network, config.states.discriminator)
    return States(run, prepared, base, rewards, network, found)


def train_discriminators(
    run: Run, prepared: Prepared, network: nn.Module, section: ConfigDict
) -> Params:
    """Trains a classifier of expert and base states per goal."""

    def sets(split: str) -> dict[str, Any]:
        base = data.windows(run, prepared, prepared.base[split])
        return {"base": base, "expert": data.expert_windows(run, prepared, split)}

    task = baselines.discriminator_task(run.model, network, section.batch_size)
    goals, axes = len(run.config.goals), {"base": None, "expert": d.MEMBER_AXES}
    settings = {"model": run.config.model.to_dict()}
    return stages.train_stage(
        run.workdir / "discriminators",
        task,
        section,
        settings=settings,
        inputs={"data": report.stage_digest(run.folder("data"))},
        data=sets("train"),
        members=train.Members(goals, axes),
        seed=run.config.seed + 3,
        evaluate=validation.held_out_metrics(task, sets("val"), axes=axes),
    )
