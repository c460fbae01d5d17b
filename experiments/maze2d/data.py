"""The data of a maze run: generated in the simulator, split, cut into windows."""

import time

import numpy as np

from diffreward import data as d
from diffreward import report
from diffreward.text import say
from experiments.maze2d.build import ACT, GOAL, OBS, Prepared, Run

FREE = ("processes", "limit")
"""Keys of ``data`` that change nothing that is written."""


def make_data(run: Run) -> None:
    """Generates base and expert trajectories in the simulator."""
    config, folder, section = run.config, run.folder("data"), run.config.data
    settings = {
        "maze": config.maze,
        "goals": list(config.goals),
        "seed": config.seed,
        # How many processes share the work, or learn from how much, changes no byte.
        "data": {k: v for k, v in section.to_dict().items() if k not in FREE},
    }
    if report.open_stage(folder, settings):
        say("data: done before")
        return
    recipe = d.Recipe(
        frame_skip=section.frame_skip,
        action_noise=section.action_noise,
        hold=section.hold,
        max_steps=section.max_steps,
    )
    began = time.time()
    kinds: tuple[tuple[str, tuple, int], ...] = (
        ("base", (None,), section.base_transitions),
        ("experts", tuple(config.goals), section.expert_transitions),
    )
    for name, goals, transitions in kinds:
        d.generate(
            folder / name,
            config.maze,
            goals,
            transitions=transitions,
            seed=config.seed,
            recipe=recipe,
            processes=section.processes,
        )
    report.close_stage(folder, {"seconds": time.time() - began})


def prepare(run: Run) -> Prepared:
    """Reads the data, splits it by episode and fits the shared normaliser."""
    config, folder = run.config, run.folder("data")

    def by_split(episodes: d.Episodes) -> dict[str, d.Episodes]:
        parts = d.split_episodes(len(episodes.starts), config.seed)
        found = {name: d.select(episodes, index) for name, index in parts.items()}
        # Little data is little to learn from; what judges it stays as large.
        learned = d.first_transitions(found["train"], config.data.limit)
        return {**found, "train": learned}

    base = by_split(d.load(folder / "base", config.maze, None))
    experts = [
        by_split(d.load(folder / "experts", config.maze, goal)) for goal in config.goals
    ]
    if config.conditioned:
        base = {name: tell_goals(run, part) for name, part in base.items()}
        each = enumerate(experts)
        experts = [{n: tell(run, part, i) for n, part in e.items()} for i, e in each]
    return Prepared(d.fit_limits(d.transitions(base["train"])), base, experts)


def tell_goals(run: Run, episodes: d.Episodes) -> d.Episodes:
    """Episodes of nobody's goal, each told one by chance: a base learns not to mind."""
    rng = np.random.default_rng([run.config.seed, len(episodes.starts)])
    return tell(
        run, episodes, rng.integers(len(run.config.goals), size=len(episodes.starts))
    )


def tell(run: Run, episodes: d.Episodes, which: int | np.ndarray) -> d.Episodes:
    """Ends every observation with a goal, in place of the one it may end with.

    Args:
        run: of this maze.
        episodes: of observations with or without a goal.
        which: index into the run's goals, of all episodes or one per episode.
    """
    goals = run.maze.goals[np.asarray(run.config.goals) - 1][which]
    each = np.broadcast_to(goals, (len(episodes.starts), GOAL)).astype(np.float32)
    rows = np.repeat(each, episodes.lengths, axis=0)
    bare = episodes.observations[:, :OBS]
    return episodes._replace(observations=np.concatenate([bare, rows], axis=1))


def with_base_told(run: Run, prepared: Prepared, index: int) -> Prepared:
    """The same with the base's episodes told one goal, by which that goal is judged."""
    told = {name: tell(run, part, index) for name, part in prepared.base.items()}
    return prepared._replace(base=told)


def windows(run: Run, prepared: Prepared, episodes: d.Episodes) -> d.Windows:
    """Windows of one set of episodes."""
    return d.make_windows(
        episodes,
        prepared.normaliser,
        horizon=run.config.model.horizon,
        pad=run.config.model.pad,
        balance="episode",
    )


def expert_windows(run: Run, prepared: Prepared, split: str) -> d.Windows:
    """Windows of all experts, one member each."""
    found = d.stack_windows([windows(run, prepared, e[split]) for e in prepared.experts])
    if not run.config.conditioned:
        return found
    none, every = np.zeros_like(found.offset[:1]), found.count.sum(keepdims=True)
    return found._replace(offset=none, count=every.astype(found.count.dtype))


def blank_windows(run: Run) -> d.Windows:
    """One window of zeros: shapes are all an estimate needs."""
    horizon = run.config.model.horizon
    zeros = np.zeros((horizon + 1, ACT + run.obs), np.float32)
    timeouts = np.arange(horizon + 1) == horizon
    episodes = d.Episodes.from_arrays(zeros[:, ACT:], zeros[:, :ACT], timeouts=timeouts)
    normaliser = d.Normaliser(zeros[0], zeros[0] + 1)
    return d.make_windows(episodes, normaliser, horizon=horizon, pad=False)


def resting_states(run: Run, count: int = 1024) -> np.ndarray:
    """Observations at rest at free places of the maze."""
    states = np.zeros((count, OBS), np.float32)
    rng = np.random.default_rng(run.config.seed)
    states[:, :2] = d.sample_free(run.maze, rng, count)
    return states
