"""Training stages: one task trained in one folder, from where it stands."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.common import ConfigDict
from diffreward import data as d
from diffreward import report, train
from diffreward.learn import SOURCES, WEIGHTINGS, Denoiser, distillation_task, reward_task
from diffreward.networks import EnergyDenoiser, ResidualEnergy
from diffreward.types import Params
from experiments import validation
from experiments.build import build_reward, energy_net, optimiser
from experiments.samples import crossed_samples

_wandb: dict[str, Any] | None = None


def mirror_to(project: str | None) -> None:
    """Names the wandb project that metrics of all stages are mirrored to, or none."""
    global _wandb
    _wandb = {"project": project} if project else None


def reward_sets(source: str) -> set[str]:
    """Sets of windows that training a reward is given."""
    return {"base", "expert", *SOURCES[source]}


def reward_members(source: str, population: int) -> train.Members:
    """Rewards that share the base and its data; the experts and theirs are their own."""
    axes = {n: None if n == "base" else d.MEMBER_AXES for n in reward_sets(source)}
    return train.Members(population, axes, {"base": None, "expert": 0})


def train_stage(
    folder: Path,
    task: train.Task,
    config: ConfigDict,
    *,
    settings: dict[str, Any],
    inputs: dict[str, str],
    data: Any,
    frozen: Any = None,
    members: train.Members = train.Members(),
    seed: int,
    evaluate: Callable[[train.TrainState], dict[str, Any]],
) -> Params:
    """Trains one stage from where it stands; returns averaged parameters on the host."""
    # How often a run is written and on how many devices it runs is no setting.
    free = ("checkpoint_every", "devices")
    # Stages that were trained before there were such penalties had none.
    free += tuple(k for k in ("clip_weights", "l2") if not config[k])
    # Nor other weightings; rounds make stages of their own.
    free += ("weighting",) if config.get("weighting", "") == "plain" else ()
    free += ("rounds", "visits")
    # Epochs have become steps.
    free += ("epochs",)
    asked = {k: v for k, v in config.to_dict().items() if k not in free}
    settings = {
        **settings,
        "training": asked,
        "seed": seed,
        "population": members.population,
    }
    done = report.open_stage(folder, settings, inputs, together=True)
    began = time.time()
    state = train.optimise(
        task,
        optimiser(config),
        data=data,
        frozen=frozen,
        steps=config.steps,
        seed=seed,
        workdir=folder,
        name=folder.name,
        members=members,
        numerics=train.Numerics(
            config.ema_decay, config.accumulate, jnp.bfloat16 if config.bfloat16 else None
        ),
        placement=train.Placement(
            train.make_mesh(config.devices or jax.device_count(), devices=jax.devices())
        ),
        loop=train.Loop(
            steps_per_dispatch=config.steps_per_dispatch,
            log_every=config.steps_per_dispatch,
            checkpoint_every=config.checkpoint_every,
            evaluate=evaluate,
            evaluate_every=max(config.steps // 5, 1),
            wandb=_wandb,
        ),
    )
    params = jax.device_get(state.ema_params)
    if not done:
        report.close_stage(folder, {"steps": config.steps, "seconds": time.time() - began})
    return params


def energy_of_base(
    folder: Path,
    section: ConfigDict,
    settings: dict[str, Any],
    inputs: dict[str, str],
    seed: int,
    model: Denoiser,
    base: Params,
    sets: Callable[[str], dict[str, d.Windows]],
) -> tuple[Params, dict[str, str]]:
    """The base's own energy, or one that it is distilled into in a stage of its own.

    The arguments are those of :func:`train_reward_stage`.

    Returns:
        Its parameters, and the digest of the stage, if there is one.
    """
    if isinstance(model.network, EnergyDenoiser):
        return base, {}
    student = EnergyDenoiser(energy_net(model))
    task = distillation_task(model, student, section.batch_size)
    probe = distillation_task(model, student, validation.EVALUATION_WINDOWS)
    val = sets("val")["base"]
    params = train_stage(
        folder,
        task,
        section,
        settings=settings,
        inputs={name: inputs[name] for name in ("data", "base")},
        data=sets("train")["base"],
        frozen=base,
        seed=seed,
        evaluate=validation.held_out_metrics(probe, val, base, members=False),
    )
    return params, {folder.name: report.stage_digest(folder)}


def train_reward_stage(
    folder: Path,
    section: ConfigDict,
    *,
    settings: dict[str, Any],
    inputs: dict[str, str],
    seed: int,
    model: Denoiser,
    base: Params,
    experts: Params,
    sets: Callable[[str], dict[str, d.Windows]],
    samples: Callable[[], dict[str, d.Windows]],
    start: ConfigDict,
    more: Callable[[str, int], dict[str, d.Windows]] | None = None,
) -> Params:
    """Trains experts x seeds rewards in one program; member = expert * seeds + seed.

    Args:
        folder: of the stage.
        section: of the config.
        settings: what else the stage depends on.
        inputs: digests of the stages it reads.
        seed: of parameters and noise.
        model: both denoisers.
        base: parameters of the base.
        experts: parameters of the experts, stacked.
        sets: windows of one split: of the base, and stacked of the experts.
        samples: the same from the models alone, for ``source="models"``.
        start: section of the energy that residual rewards start at, where the base has
            none of its own.
        more: of (split, at most so many), windows beside those, one set per member, for
            ``source="steered"``.
    """
    reward = build_reward(section, model)
    energy = None
    if isinstance(reward.network, ResidualEnergy):
        energy, read = energy_of_base(
            folder.with_name("start"), start, settings, inputs, seed, model, base, sets
        )
        inputs = {**inputs, **read}
    weighting = WEIGHTINGS[section.get("weighting", "plain")]
    task = reward_task(model, reward, section.source, section.batch_size, energy, weighting)
    repeat: Callable[[Any], Any] = lambda x: np.repeat(np.asarray(x), section.seeds, 0)

    def repeated(windows: dict[str, d.Windows]) -> dict[str, d.Windows]:
        many = lambda w: w._replace(offset=repeat(w.offset), count=repeat(w.count))
        return {n: w if n == "base" else many(w) for n, w in windows.items()}

    def of_split(name: str, count: int) -> dict[str, d.Windows]:
        windows = sets(name)
        if section.source in ("crossed", "steered"):
            pair = (model, base, experts)
            windows |= crossed_samples(*pair, windows, count, seed + d.SPLITS.index(name))
        return repeated(windows) | (more(name, count) if more else {})

    # A finished stage only gives its parameters back.
    count = 1 if (folder / "report.json").exists() else section.samples
    few = min(count, validation.EVALUATION_WINDOWS)
    frozen = {"base": base, "expert": jax.tree.map(repeat, experts)}
    val = of_split("val", few)
    drawn = section.source == "models"
    params = train_stage(
        folder,
        task,
        section,
        settings=settings,
        inputs=inputs,
        data=repeated(samples()) if drawn else of_split("train", count),
        frozen=frozen,
        members=reward_members(section.source, len(val["expert"].count)),
        seed=seed,
        evaluate=validation.fvu_by_level(model, reward, frozen, val),
    )
    if energy is not None:
        # Averaging rounded what was held still.
        held = lambda x: np.broadcast_to(x, (len(val["expert"].count), *np.shape(x)))
        params = {**params, "start": jax.tree.map(held, energy)}
    return params
