"""The record of one run: what its config describes, built once, and what it trains."""

from pathlib import Path
from typing import NamedTuple

from flax import linen as nn

from configs.common import ConfigDict
from diffreward import data as d
from diffreward import report
from diffreward.learn import Denoiser, RewardModel
from diffreward.types import Params

REWARDS = ("rewards", "paper_rewards")
"""Sections that train a reward."""


class Run(NamedTuple):
    """A config in its folder, and its models without their parameters."""

    config: ConfigDict
    workdir: Path
    task: d.LocomotionTask
    denoiser: Denoiser
    """Of base and expert."""
    rewards: dict[str, RewardModel]
    """By the name of their section."""
    discriminator: nn.Module
    value: nn.Module

    def digests(self, *stages: str) -> dict[str, str]:
        """Of finished stages, for those that read them."""
        return {name: report.stage_digest(self.workdir / name) for name in stages}


class Trained(NamedTuple):
    """Parameters of all models of a run; those of members are stacked by seed."""

    base: Params
    expert: Params
    rewards: dict[str, Params]
    """By the name of their section."""
    baselines: dict[str, Params]
    """By the name of their section; those whose rows are asked for."""
