"""Locomotion: data -> base, expert -> rewards and baselines -> rollouts -> table.

Every stage has a folder under --workdir and is skipped once finished; run the same
command again after any interruption.
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from configs.common import ConfigDict
from diffreward import data as d
from diffreward import report, train
from diffreward.files import recorded, sha256
from diffreward.learn import Denoiser, denoising_task
from diffreward.text import say
from diffreward.types import Params
from experiments import baselines, cost, samples, stages, validation
from experiments.build import build_denoiser, build_scalar, optimiser
from experiments.locomotion import evaluate, page
from experiments.locomotion.check import REWARDS, check


class Prepared(NamedTuple):
    """Episodes by split, and the coordinates of every model."""

    normaliser: d.Normaliser
    base: dict[str, d.Episodes]
    expert: dict[str, d.Episodes]


def main(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Runs every stage that has not finished; returns the final report."""
    began = time.time()
    check(config)
    announce(config)
    make_data(config, workdir)
    prepared = prepare(config, workdir)
    model = build_model(config)
    trained = {"base": train_base(config, workdir, prepared, model, "base", config.seed)}
    trained["expert"] = train_expert(config, workdir, prepared, model, trained["base"])
    for name in REWARDS:
        trained[name] = train_rewards(config, workdir, prepared, model, trained, name)
    trained["discriminator"] = train_discriminator(config, workdir, prepared, model)
    trained["value"] = train_value(config, workdir, prepared, model)
    if config.other_base:
        # Rewards stay what they are; only the model they steer is another one.
        trained["base"] = train_base(
            config, workdir, prepared, model, "other_base", config.seed + 100
        )
    folder = workdir / "evaluation"
    names = ["data", *(n for n in trained if n != "base"), "base"]
    names += ["other_base"] if config.other_base else []
    inputs = {name: report.stage_digest(workdir / name) for name in names}
    settings = {"evaluation": config.evaluation.to_dict(), "seed": config.seed}
    if not report.open_stage(folder, settings, inputs):
        started = time.time()
        results = evaluate.evaluate(config, folder, prepared, model, trained)
        report.close_stage(folder, {**results, "seconds": time.time() - started})
    result = report.read_json(folder / "report.json")
    page.write(config, workdir, result)
    say(f"report: {workdir / 'report.md'} ({time.time() - began:.0f} s in this call)")
    return result


def build_model(config: ConfigDict) -> Denoiser:
    """Both Diffusers of a task."""
    task = d.LOCOMOTION[config.task]
    return build_denoiser(config.model, task.act_dim, task.obs_dim)


def announce(config: ConfigDict) -> None:
    """Prints what the run will train, and about how long and in how much memory."""
    model = build_model(config)
    one = blank_windows(config)
    rows = []
    for name in ("base", "expert"):
        task = denoising_task(model, config[name].batch_size)
        rows.append((name, config[name], 1, _cost(task, config[name], one)))
    for name in REWARDS:
        section, seeds = config[name], config[name].seeds
        each = cost.reward_cost(section, model, one, seeds)
        rows.append((name, section, seeds, each))
    section = config.discriminator
    network = build_scalar(section)
    task = baselines.discriminator_task(model, network, section.batch_size)
    each = _cost(task, section, {"base": one, "expert": one}, section.seeds)
    rows.append(("discriminator", section, section.seeds, each))
    cost.print_plan(rows, data_bytes=8 * model.shape[1] * config.data.transitions)


def _cost(task: Any, section: ConfigDict, data: Any, seeds: int | None = None) -> dict:
    members = train.Members(seeds)
    return train.estimate(task, optimiser(section), data=data, members=members)


def blank_windows(config: ConfigDict) -> d.Windows:
    """One window of zeros: shapes are all an estimate needs."""
    task, rows = d.LOCOMOTION[config.task], config.model.horizon + 1
    episodes = d.Episodes.from_arrays(
        np.zeros((rows, task.obs_dim), np.float32),
        np.zeros((rows, task.act_dim), np.float32),
        timeouts=np.arange(rows) == rows - 1,
    )
    dim = task.obs_dim + task.act_dim
    normaliser = d.Normaliser(np.zeros(dim, np.float32), np.ones(dim, np.float32))
    return d.make_windows(episodes, normaliser, horizon=config.model.horizon, pad=False)


def make_data(config: ConfigDict, workdir: Path) -> None:
    """Collects or finds both datasets and writes down what they are."""
    folder, section = workdir / "data", config.data
    # How many processes share the work changes no byte of it.
    asked = {k: v for k, v in section.to_dict().items() if k not in ("processes", "folder")}
    settings = {"task": config.task, "seed": config.seed, "data": asked}
    kinds = {name: d.parse_source(section[name]) for name in ("base", "expert")}
    ready: dict[str, d.Episodes] = {}
    inputs: dict[str, str] = {}
    # Files that cannot be used shall not bind the folder to the settings they had; those
    # that can are known by their bytes, wherever they lie.
    for name in [name for name, (kind, _) in kinds.items() if kind != "collect"]:
        with recorded() as used:
            ready[name] = load(config, workdir, name)
        inputs[name] = report.digest(sorted(used.values()))
    if report.open_stage(folder, settings, inputs):
        say("data: done before")
        return
    began, found = time.time(), {}
    for name, (kind, rest) in kinds.items():
        if kind == "collect":
            _collect(config, rest, folder / f"{name}.hdf5")
        episodes = ready.get(name) or load(config, workdir, name)
        returns = d.episode_returns(episodes)
        found[name] = {
            "source": section[name],
            "file": episodes.source,
            **({"sha256": sha256(folder / f"{name}.hdf5")} if kind == "collect" else {}),
            "episodes": len(returns),
            "transitions": len(episodes.rewards),
            "return": float(returns.mean()),
            "score": float(d.normalised_score(config.task, returns).mean()),
        }
        say(f"{name}: {found[name]}")
    report.close_stage(folder, {**found, "seconds": time.time() - began})


def _collect(config: ConfigDict, what: str, path: Path) -> None:
    task, _, kind = what.partition("/")
    with tqdm(total=config.data.transitions, desc=what, unit="step") as bar:
        stream = d.collect_again(
            task,
            kind,
            transitions=config.data.transitions,
            seed=config.seed,
            processes=config.data.processes,
            progress=bar.update,
        )
    d.write_hdf5(path, stream, {"source": f"collect:{what}", "seed": config.seed})


def own_file(folder: Path, name: str) -> Path:
    """A file that was collected, unless it is no longer what was written.

    Raises:
        ValueError: if it is not.
    """
    path, record = folder / f"{name}.hdf5", folder / "report.json"
    if record.exists() and report.read_json(record)[name].get("sha256") != sha256(path):
        raise ValueError(f"{path} is not the file that was collected")
    return path


def load(config: ConfigDict, workdir: Path, name: str) -> d.Episodes:
    """Episodes of the base or the expert, checked against the task."""
    kind, rest = d.parse_source(config.data[name])
    folder = config.data.folder or None
    if kind == "d4rl":
        episodes = d.load_d4rl(rest, folder)
    elif kind == "minari":
        episodes = d.load_minari(rest, folder)
    elif kind == "ogbench":
        episodes = d.load_ogbench(rest, folder)
    elif kind == "collect":
        try:
            with recorded():  # what is compared is what is read
                episodes = d.read_hdf5(own_file(workdir / "data", name))
        except (ValueError, FileNotFoundError) as error:
            raise ValueError(
                f"{error}; delete {workdir / 'data'} to collect the data again"
            ) from error
    else:
        episodes = d.read_file(rest)
    d.check_task(episodes, config.task)
    if not episodes.rewards.any():
        raise ValueError(
            f"{episodes.source}: rewards: missing or all zero; the row 'value' and the "
            "scores of the data need them"
        )
    episodes = d.first_transitions(episodes, config.data.limit)
    try:
        d.split_episodes(len(episodes.starts), config.seed)
    except ValueError as error:
        raise ValueError(f"{episodes.source}: {error}") from None
    return episodes


def prepare(config: ConfigDict, workdir: Path) -> Prepared:
    """Reads the data, splits it by episode and fits the shared normaliser."""

    def by_split(name: str) -> dict[str, d.Episodes]:
        episodes = load(config, workdir, name)
        parts = d.split_episodes(len(episodes.starts), config.seed)
        return {split: d.select(episodes, index) for split, index in parts.items()}

    base, expert = by_split("base"), by_split("expert")
    return Prepared(d.fit_gaussian(d.transitions(base["train"])), base, expert)


def windows(config: ConfigDict, prepared: Prepared, episodes: d.Episodes) -> d.Windows:
    """Windows of one set of episodes."""
    return d.make_windows(
        episodes, prepared.normaliser, horizon=config.model.horizon, pad=config.model.pad
    )


def both_windows(
    config: ConfigDict, prepared: Prepared, split: str
) -> dict[str, d.Windows]:
    """Windows of base and expert."""
    return {
        "base": windows(config, prepared, prepared.base[split]),
        "expert": windows(config, prepared, prepared.expert[split]),
    }


def train_base(
    config: ConfigDict,
    workdir: Path,
    prepared: Prepared,
    model: Denoiser,
    name: str,
    seed: int,
) -> Params:
    """Trains a base Diffuser; returns its averaged parameters."""
    return stages.train_stage(
        workdir / name,
        denoising_task(model, config.base.batch_size),
        config.base,
        settings={"model": config.model.to_dict()},
        inputs={"data": report.stage_digest(workdir / "data")},
        data=windows(config, prepared, prepared.base["train"]),
        seed=seed,
        evaluate=validation.denoising_error(
            model, windows(config, prepared, prepared.base["val"])
        ),
    )


def train_expert(
    config: ConfigDict,
    workdir: Path,
    prepared: Prepared,
    model: Denoiser,
    base: Params,
) -> Params:
    """Trains the expert Diffuser, from the base or from nothing."""
    initial = base if config.expert.init == "base" else None
    return stages.train_stage(
        workdir / "expert",
        denoising_task(model, config.expert.batch_size, initial),
        config.expert,
        settings={"model": config.model.to_dict()},
        inputs={n: report.stage_digest(workdir / n) for n in ("data", "base")},
        data=windows(config, prepared, prepared.expert["train"]),
        seed=config.seed + 1,
        evaluate=validation.denoising_error(
            model, windows(config, prepared, prepared.expert["val"])
        ),
    )


def train_rewards(
    config: ConfigDict,
    workdir: Path,
    prepared: Prepared,
    model: Denoiser,
    trained: dict[str, Params],
    name: str,
) -> Params:
    """Trains all seeds of one kind of reward in one program."""
    experts = jax.tree.map(lambda x: np.asarray(x)[None], trained["expert"])

    def sets(split: str) -> dict[str, d.Windows]:
        both = both_windows(config, prepared, split)
        return {"base": both["base"], "expert": d.stack_windows([both["expert"]])}

    def from_models() -> dict[str, d.Windows]:
        act_dim = d.LOCOMOTION[config.task].act_dim
        return samples.model_samples(
            model,
            trained["base"],
            experts,
            first_states(config),
            prepared.normaliser,
            act_dim,
            config.seed,
        )

    return stages.train_reward_stage(
        workdir / name,
        config[name],
        settings={"model": config.model.to_dict()},
        inputs={n: report.stage_digest(workdir / n) for n in ("data", "base", "expert")},
        seed=config.seed + 2,
        model=model,
        base=trained["base"],
        experts=experts,
        sets=sets,
        samples=from_models,
    )


def first_states(config: ConfigDict, count: int = 1024) -> np.ndarray:
    """Observations after resets of the simulator: no data is touched."""
    env = d.make_locomotion(config.task)
    states = [env.reset(seed=config.seed + i)[0] for i in range(count)]
    env.close()
    return np.asarray(states, np.float32)


def train_discriminator(
    config: ConfigDict, workdir: Path, prepared: Prepared, model: Denoiser
) -> Params:
    """Trains all seeds of the discriminator in one program."""
    section = config.discriminator
    network = build_scalar(section)
    task = baselines.discriminator_task(model, network, section.batch_size)
    return stages.train_stage(
        workdir / "discriminator",
        task,
        section,
        settings={"model": config.model.to_dict()},
        inputs={"data": report.stage_digest(workdir / "data")},
        data=both_windows(config, prepared, "train"),
        members=train.Members(section.seeds),
        seed=config.seed + 3,
        evaluate=validation.held_out_metrics(task, both_windows(config, prepared, "val")),
    )


def train_value(
    config: ConfigDict, workdir: Path, prepared: Prepared, model: Denoiser
) -> Params:
    """Trains Diffuser's guide: returns to go of the base's data, standardised."""
    section = config.value
    network = build_scalar(section)
    task = baselines.value_task(model, network, section.batch_size)
    base = {
        split: d.with_returns(prepared.base[split], section.discount)
        for split in ("train", "val")
    }
    to_go = d.fit_gaussian(base["train"].observations[:, -1:])
    normaliser = jax.tree.map(
        lambda a, b: np.concatenate([a, b]), prepared.normaliser, to_go
    )
    cut = lambda split: d.make_windows(
        base[split], normaliser, horizon=config.model.horizon, pad=config.model.pad
    )
    return stages.train_stage(
        workdir / "value",
        task,
        section,
        settings={"model": config.model.to_dict()},
        inputs={"data": report.stage_digest(workdir / "data")},
        data=cut("train"),
        members=train.Members(section.seeds),
        seed=config.seed + 4,
        evaluate=validation.held_out_metrics(task, cut("val")),
    )
