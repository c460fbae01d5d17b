"""The records of a study: its policies, and the maze run whose reward pays them."""

from pathlib import Path
from typing import NamedTuple

from configs.common import ConfigDict
from diffreward import files
from diffreward.types import Params
from experiments.maze2d import data
from experiments.maze2d import run as maze2d
from experiments.maze2d.build import Prepared, Run
from experiments.rl.states import States, train_states


class Job(NamedTuple):
    """One policy."""

    goal: int
    kind: str
    seed: int

    def folder(self, workdir: Path) -> Path:
        """Where it is written."""
        return workdir / f"goal{self.goal}" / f"{self.kind}-{self.seed}"


class Study(NamedTuple):
    """All that training a policy needs."""

    config: ConfigDict
    workdir: Path
    run: Run
    """Of the maze, where the reward comes from."""
    prepared: Prepared
    """Its data."""
    window_rewards: Params
    """Stacked: member = goal * seeds + seed."""
    states: States
    """Models of its states."""

    @property
    def jobs(self) -> list[Job]:
        """The policies, seed by seed: a study that is cut short has a few of each."""
        return [
            Job(goal, kind, seed)
            for seed in seeds(self.config)
            for goal in self.config.goals
            for kind in self.config.rewards
        ]


def seeds(config: ConfigDict) -> range:
    """Of the policies of every goal and form of pay."""
    return range(config.first_seed, config.first_seed + config.seeds)


def build(config: ConfigDict, workdir: Path) -> Study:
    """Turns a checked config into objects; trains what its maze run does not have yet."""
    folder = files.user_path(config.run)
    # What is missing there is trained there, so the folder is ours as long.
    with files.claim(folder, "--config.run"):
        run = maze2d.build(config.maze2d, folder)
        data.make_data(run)
        prepared = data.prepare(run)
        base = maze2d.train_base(run, prepared)
        experts = maze2d.train_experts(run, prepared, base)
        rewards = maze2d.train_rewards(run, prepared, base, experts, "window_rewards")
        states = train_states(config, run, prepared)
    return Study(config, workdir, run, prepared, rewards, states)
