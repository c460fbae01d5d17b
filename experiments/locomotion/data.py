"""Data of a run: collected or found, split by episode, cut into windows."""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from diffreward import data as d
from diffreward import report
from diffreward.files import recorded, sha256
from diffreward.text import say
from experiments.locomotion.record import Run


class Prepared(NamedTuple):
    """Episodes by split, and the coordinates of every model."""

    normaliser: d.Normaliser
    base: dict[str, d.Episodes]
    expert: dict[str, d.Episodes]


def make_data(run: Run) -> None:
    """Collects or finds both datasets and writes down what they are."""
    config, folder, section = run.config, run.workdir / "data", run.config.data
    # How many processes share the work changes no byte of it.
    free = ("processes", "folder", "base_noise")
    asked = {k: v for k, v in section.to_dict().items() if k not in free}
    settings = {"task": config.task, "seed": config.seed, "data": asked}
    kinds = {name: d.parse_source(section[name]) for name in ("base", "expert")}
    ready: dict[str, d.Episodes] = {}
    inputs: dict[str, str] = {}
    # Files that cannot be used shall not bind the folder to the settings they had; those
    # that can are known by their bytes, wherever they lie.
    for name in [name for name, (kind, _) in kinds.items() if kind != "collect"]:
        with recorded() as used:
            ready[name] = load(run, name)
        inputs[name] = report.digest(sorted(used.values()))
    if report.open_stage(folder, settings, inputs):
        say("data: done before")
        return
    began, found = time.time(), {}
    for name, (kind, rest) in kinds.items():
        if kind == "collect":
            _collect(run, rest, folder / f"{name}.hdf5")
        episodes = ready.get(name) or load(run, name)
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


def _collect(run: Run, what: str, path: Path) -> None:
    task, _, kind = what.partition("/")
    section, seed = run.config.data, run.config.seed
    with tqdm(total=section.transitions, desc=what, unit="step") as bar:
        stream = d.collect_again(
            task,
            kind,
            transitions=section.transitions,
            seed=seed,
            processes=section.processes,
            progress=bar.update,
        )
    d.write_hdf5(path, stream, {"source": f"collect:{what}", "seed": seed})


def own_file(folder: Path, name: str) -> Path:
    """A file that was collected, unless it is no longer what was written.

    Raises:
        ValueError: if it is not.
    """
    path, record = folder / f"{name}.hdf5", folder / "report.json"
    if record.exists() and report.read_json(record)[name].get("sha256") != sha256(path):
        raise ValueError(f"{path} is not the file that was collected")
    return path


def load(run: Run, name: str) -> d.Episodes:
    """Episodes of the base or the expert, checked against the task.

    Raises:
        ValueError: naming the file and what is wrong with it.
    """
    config, section = run.config, run.config.data
    kind, rest = d.parse_source(section[name])
    folder = section.folder or None
    if kind == "d4rl":
        episodes = d.load_d4rl(rest, folder)
    elif kind == "minari":
        episodes = d.load_minari(rest, folder)
    elif kind == "ogbench":
        episodes = d.load_ogbench(rest, folder)
    elif kind == "collect":
        try:
            with recorded():  # what is compared is what is read
                episodes = d.read_hdf5(own_file(run.workdir / "data", name))
        except (ValueError, FileNotFoundError) as error:
            raise ValueError(
                f"{error}; delete {run.workdir / 'data'} to collect the data again"
            ) from error
    else:
        episodes = d.read_file(rest)
    d.check_task(episodes, config.task)
    if not episodes.rewards.any():
        raise ValueError(
            f"{episodes.source}: rewards: missing or all zero; the row 'value' and the "
            "scores of the data need them"
        )
    episodes = d.first_transitions(episodes, section.limit)
    try:
        d.split_episodes(len(episodes.starts), config.seed)
    except ValueError as error:
        raise ValueError(f"{episodes.source}: {error}") from None
    return episodes


def prepare(run: Run) -> Prepared:
    """Reads the data, splits it by episode and fits the shared normaliser."""

    def by_split(name: str) -> dict[str, d.Episodes]:
        episodes = load(run, name)
        parts = d.split_episodes(len(episodes.starts), run.config.seed)
        return {split: d.select(episodes, index) for split, index in parts.items()}

    base, expert = by_split("base"), by_split("expert")
    normaliser = d.fit_gaussian(d.transitions(base["train"]))
    return Prepared(normaliser, base, expert)


def noised(run: Run, prepared: Prepared, split: str) -> d.Episodes:
    """What the base learns from: its data in fixed noise, if a study asks for some.

    Clipped at 5 deviations, as in the published sweep; every entry of the data keeps its
    noise for the whole of the training.
    """
    episodes, level = prepared.base[split], run.config.data.base_noise
    if not level:
        return episodes
    rng = np.random.default_rng([run.config.seed, d.SPLITS.index(split)])
    acts = episodes.actions.shape[1]

    def added(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
        noise = np.clip(rng.normal(size=x.shape), -5, 5) * level * scale
        return (x + noise).astype(x.dtype)

    scale = np.asarray(prepared.normaliser.scale)
    return episodes._replace(
        actions=added(episodes.actions, scale[:acts]),
        observations=added(episodes.observations, scale[acts:]),
    )


def windows(run: Run, normaliser: d.Normaliser, episodes: d.Episodes) -> d.Windows:
    """Windows of one set of episodes."""
    section = run.config.model
    w = d.make_windows(episodes, normaliser, horizon=section.horizon, pad=section.pad)
    return d.under_first_observation(w, section.horizon) if section.policy else w


def both_windows(run: Run, prepared: Prepared, split: str) -> dict[str, d.Windows]:
    """Windows of base and expert."""
    return {
        "base": windows(run, prepared.normaliser, prepared.base[split]),
        "expert": windows(run, prepared.normaliser, prepared.expert[split]),
    }


def blank_windows(run: Run) -> d.Windows:
    """One window of zeros: shapes are all an estimate needs."""
    task, horizon = run.task, run.config.model.horizon
    rows, dim = horizon + 1, task.obs_dim + task.act_dim
    episodes = d.Episodes.from_arrays(
        np.zeros((rows, task.obs_dim), np.float32),
        np.zeros((rows, task.act_dim), np.float32),
        timeouts=np.arange(rows) == rows - 1,
    )
    normaliser = d.Normaliser(np.zeros(dim, np.float32), np.ones(dim, np.float32))
    return d.make_windows(episodes, normaliser, horizon=horizon, pad=False)


def first_states(run: Run, count: int = 1024) -> np.ndarray:
    """Observations after resets of the simulator, (count, obs): no data is touched."""
    env = d.make_locomotion(run.config.task)
    states = [env.reset(seed=run.config.seed + i)[0] for i in range(count)]
    env.close()
    return np.asarray(states, np.float32)
