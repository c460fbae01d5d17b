"""Images: two models -> records of both -> a reward -> an audit of what it prefers.

Every stage has a folder under --workdir and is skipped once finished; run the same
command again after any interruption.
"""

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from tqdm import tqdm

from configs.common import ConfigDict, choose
from diffreward import data as d
from diffreward import report
from diffreward.learn import LatentRewardModel, RecordedReward, RewardModel, record_task
from diffreward.networks import (
    Flattened,
    InnerProductReward,
    ScalarReward,
    UnetReward,
    ValueUnet,
)
from diffreward.reward import PAPER, LatentStandards, fit_standards
from diffreward.text import say
from diffreward.types import Params
from experiments import limits, stages
from experiments.build import build_objective, trunk
from experiments.images import audit, digits, page, records, stable_diffusion
from experiments.images.pair import ImagePair

MODELS = {"digits": digits, "sd": stable_diffusion}
STAGES = {"digits": ("base", "aligned"), "sd": ("models",)}
NETWORKS = ("inner", "scalar", "unet", "value_unet")


def main(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Runs every stage that has not finished; returns the final report."""
    began = time.time()
    check(config)
    source = MODELS[config.task]
    pair = source.make_pair(config, workdir)
    inputs = {n: report.stage_digest(workdir / n) for n in STAGES[config.task]}
    shards = records.write(config, workdir, pair, inputs)
    reward = build_reward(config, workdir, pair, shards)
    params = train_reward(config, workdir, pair, reward, shards)

    folder = workdir / "audit"
    inputs = {n: report.stage_digest(workdir / n) for n in ("records", "rewards")}
    settings = {"audit": config.audit.to_dict(), "seed": config.seed}
    if not report.open_stage(folder, settings, inputs):
        say("audit: requests no stage has seen")
        result, arrays = audit.evaluate(config, pair, reward, params, shards)
        d.write_arrays(folder / "arrays.npz", arrays)
        report.close_stage(folder, result)
    result = report.read_json(folder / "report.json")
    arrays = d.read_arrays(folder / "arrays.npz")
    page.write(config, workdir, result, arrays, pair)
    report.write_json(workdir / "report.json", result)
    summary = f"AUROC {page.auroc(result)}"
    if "audience" in result:
        summary += f", held-out images {page.auroc(result['audience'])}"
    say(f"{summary}\nreport: {workdir / 'report.md'} ({time.time() - began:.0f} s)")
    return result


def check(config: ConfigDict) -> None:
    """Refuses values that a stage would only meet much later."""
    choose("task", config.task, MODELS)
    choose("network of the reward", config.rewards.network, NETWORKS)
    build_objective(config.rewards.preset)
    choose("records.dtype", config.records.dtype, ("float32", "float16"))
    counts = {"levels": 1, "shard": 1, "batch_size": 1, "refresh": 1, "resident": 0}
    limits.at_least(config.records, "records", **counts)
    limits.at_least(config.audit, "audit", noises=1, shown=1, resamples=1)
    if config.rewards.prompt and not (
        config.task == "sd" and config.rewards.network == "unet"
    ):
        raise ValueError(
            "rewards.prompt=True needs models with prompts and rewards.network='unet'"
        )
    limits.check_seed(config.seed)
    limits.check_training(config, "rewards")
    limits.at_least(config.rewards, "rewards", dim=1, **limits.NETWORK)
    limits.check_sizes(config.rewards, "rewards", "widths", "mults")
    MODELS[config.task].check(config)


def build_reward(
    config: ConfigDict, workdir: Path, pair: ImagePair, shards: dict[str, d.Shards]
) -> RecordedReward:
    """The reward network of ``config.rewards``; ``paper`` standardises its latents."""
    section = config.rewards
    networks: dict[str, Any] = {
        "inner": InnerProductReward(Flattened(trunk(section))),
        "scalar": ScalarReward(Flattened(trunk(section))),
        "unet": UnetReward(tuple(section.widths), prompt=section.prompt),
        "value_unet": ValueUnet(section.dim, tuple(section.mults)),
    }
    network = networks[section.network]
    objective = build_objective(section.preset)
    if objective is PAPER:  # of images: next latents, standardised
        return LatentRewardModel(network, standards(workdir, pair, shards["train"]))
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


def train_reward(
    config: ConfigDict,
    workdir: Path,
    pair: ImagePair,
    reward: RecordedReward,
    shards: dict[str, d.Shards],
) -> Params:
    """Aligns the reward with the records of the training requests."""
    section = config.rewards
    context = pair.contexts([0])[:1] if section.prompt else ()
    one = jax.tree.map(lambda c: c[0], context)
    task = record_task(reward, pair.shape, section.batch_size, one)
    held_out = records.load(shards["val"])
    probe = record_task(reward, pair.shape, 4 * section.batch_size, one)
    batch = jax.jit(probe.draw)(
        records.rows(pair, held_out, section.prompt), jax.random.key(0)
    )
    measure = jax.jit(lambda p: probe.loss(p, None, jax.random.key(1), batch))

    def evaluate(state: Any) -> dict[str, Any]:
        loss, others = measure(jax.device_get(state.ema_params))
        return {"loss": loss, **others}

    streaming = {k: config.records[k] for k in ("resident", "refresh")}
    return stages.train_stage(
        workdir / "rewards",
        task,
        section,
        settings=streaming,
        inputs={"records": report.stage_digest(workdir / "records")},
        data=records.feed(config, pair, shards["train"]),
        seed=config.seed,
        evaluate=evaluate,
    )
