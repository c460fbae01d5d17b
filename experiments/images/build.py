"""From the config of an image experiment to its run: models, records, a reward network.

Another pair is an entry of ``PAIRS``, another network one of ``NETWORKS``; neither needs
another line here.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from tqdm import tqdm

from configs.common import ConfigDict, choose
from diffreward import data as d
from diffreward import report
from diffreward.learn import LatentRewardModel, RecordedReward, RewardModel
from diffreward.networks import (
    Flattened,
    InnerProductReward,
    ResidualEnergy,
    ScalarReward,
    UnetReward,
    ValueUnet,
)
from diffreward.reward import PAPER, LatentStandards, fit_standards
from experiments import limits
from experiments.build import build_objective, check_residual, trunk
from experiments.images import digits, records, stable_diffusion
from experiments.images.pair import ImagePair, PairSource

PAIRS: dict[str, PairSource] = {"digits": digits.SOURCE, "sd": stable_diffusion.SOURCE}
"""What is audited, by ``task``."""


class RewardNetwork(NamedTuple):
    """A kind of network of (x_t, t), or of (x_t, t, prompt)."""

    make: Callable[[ConfigDict, ImagePair], Any]
    """Maps (``config.rewards``, the pair) to a module."""
    reads_prompts: bool = False
    """Whether ``rewards.prompt`` has an effect on it."""


NETWORKS: dict[str, RewardNetwork] = {
    "inner": RewardNetwork(lambda c, _: InnerProductReward(Flattened(trunk(c)))),
    "scalar": RewardNetwork(lambda c, _: ScalarReward(Flattened(trunk(c)))),
    "unet": RewardNetwork(
        lambda c, _: UnetReward(tuple(c.widths), prompt=c.prompt), reads_prompts=True
    ),
    "value_unet": RewardNetwork(lambda c, _: ValueUnet(c.dim, tuple(c.mults))),
    "residual": RewardNetwork(lambda c, pair: ResidualEnergy(pair.energy.net)),
}
"""Rewards of images, by ``rewards.network``."""


class Run(NamedTuple):
    """One run: its config, and what that describes."""

    config: ConfigDict
    workdir: Path
    pair: ImagePair
    shards: dict[str, d.Shards]
    """Records of both models, by split."""
    reward: RecordedReward
    """Without its parameters."""

    def rows(self, found: dict[str, Any]) -> Any:
        """What the reward is trained on of some records."""
        return records.rows(self.pair, found, self.config.rewards.prompt)


def check(config: ConfigDict) -> None:
    """Refuses values that a stage would only meet much later."""
    choose("task", config.task, PAIRS)
    choose("network of the reward", config.rewards.network, NETWORKS)
    objective = build_objective(config.rewards.preset)
    choose("records.dtype", config.records.dtype, ("float32", "float16"))
    counts = {"levels": 1, "shard": 1, "batch_size": 1, "refresh": 1, "resident": 0}
    limits.at_least(config.records, "records", **counts)
    least = {"noises": 1, "shown": 1, "resamples": 1, "ratio_levels": 2, "gallery": 2}
    limits.at_least(config.audit, "audit", **least)
    limits.check_scales(config.audit.scales, "audit.scales")
    source, network = PAIRS[config.task], NETWORKS[config.rewards.network]
    if config.rewards.network == "residual":
        if not source.has_energy:
            able = " or ".join(repr(n) for n, kind in PAIRS.items() if kind.has_energy)
            raise ValueError(
                "rewards.network='residual' starts at an energy of the base's network, "
                f"which only task {able} knows; use another network"
            )
        check_residual(objective)
    if config.rewards.prompt and not (source.has_prompts and network.reads_prompts):
        able = " or ".join(repr(n) for n, kind in NETWORKS.items() if kind.reads_prompts)
        raise ValueError(
            f"rewards.prompt=True needs models with prompts and rewards.network={able}"
        )
    limits.check_seed(config.seed)
    limits.at_least(config.rewards, "rewards", steps=0, epochs=0, batch_size=1)
    if not config.rewards.steps and not config.rewards.epochs:
        raise ValueError(
            "rewards.steps and rewards.epochs are both 0; set one of them, or the reward "
            "is not trained"
        )
    trained = ("rewards", "start", "classifier", "judge")
    limits.check_training(with_steps(config, 1), *trained)
    limits.at_least(config.rewards, "rewards", dim=1, **limits.NETWORK)
    limits.check_sizes(config.rewards, "rewards", "widths", "mults")
    source.check(config)


def with_steps(config: ConfigDict, requests: int) -> ConfigDict:
    """The config with the steps that ``rewards.epochs`` asks for, if none are given.

    An epoch sees as many states as chains of both models were recorded at, of the requests
    of training.
    """
    own = config.copy_and_resolve_references()
    if own.rewards.steps:
        return own
    states = records.FRACTIONS[0] * requests * 2 * own.records.levels
    with own.unlocked():
        steps = own.rewards.epochs * states / own.rewards.batch_size
        own.rewards.steps = max(1, round(steps))
    return own


def build(config: ConfigDict, workdir: Path) -> Run:
    """The run of a checked config; what it lacks of models and records is made."""
    source = PAIRS[config.task]
    pair = source.make_pair(config, workdir)
    config = with_steps(config, len(pair.prompts.text))
    inputs = {name: report.stage_digest(workdir / name) for name in source.stages}
    shards = records.write(config, workdir, pair, inputs)
    reward = build_reward(config, workdir, pair, shards["train"])
    return Run(config, workdir, pair, shards, reward)


def build_reward(
    config: ConfigDict, workdir: Path, pair: ImagePair, shards: d.Shards
) -> RecordedReward:
    """The reward of ``config.rewards``; ``paper`` standardises latents of ``shards``."""
    section = config.rewards
    network = NETWORKS[section.network].make(section, pair)
    objective = build_objective(section.preset)
    if objective is PAPER:  # of images: next latents, standardised
        return LatentRewardModel(network, standards(workdir, pair, shards))
    return RewardModel(network, pair.schedule, objective)


def standards(workdir: Path, pair: ImagePair, shards: d.Shards) -> LatentStandards:
    """Mean and deviation of latents; of training requests only, so nothing leaks."""
    folder = workdir / "standards"
    inputs = {"records": report.stage_digest(workdir / "records")}
    if not report.open_stage(folder, {}, inputs):
        indices = tqdm(range(shards.count), desc="standards", unit="shard")
        parts = (records.recorded(shards, i) for i in indices)
        t = d.read_shard(shards, 0)["t"]
        found = fit_standards(pair.schedule, t, parts)
        d.write_arrays(folder / "arrays.npz", jax.device_get(found)._asdict())
        report.close_stage(folder, {"levels": len(t)})
    arrays = d.read_arrays(folder / "arrays.npz")
    return LatentStandards(**{k: jnp.asarray(v) for k, v in arrays.items()})
