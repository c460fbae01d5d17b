"""One pair at one seed: what its extractors are given, and how they are measured.

Another pair with a known reward is an entry of ``PAIRS`` and needs no other line.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from configs.common import ConfigDict
from diffreward import extract, report
from diffreward.data import pairs
from diffreward.diffusion import cosine
from diffreward.extract import truth
from diffreward.extract.conditional import KnownConditionalPair, known_conditional_pairs
from diffreward.reward import noised_values
from experiments.leaderboard import maze, page

Scores = dict[str, np.ndarray]
"""What a reward says of every test sample, and what is true of it."""

EACH = 4
"""Test samples of either law under one context."""
COUNTING = "counting"
"""The row of visits alone, beside the extractors of the maze."""


class Case(NamedTuple):
    """One pair at one seed."""

    config: ConfigDict
    workdir: Path
    pair: str
    """A key of ``PAIRS``."""
    seed: int

    def folder(self, row: str) -> Path:
        """Where one row is kept."""
        return self.workdir / self.pair / f"seed_{self.seed}" / row.replace(":", "-")


class Rival(NamedTuple):
    """A row that no extractor makes, and that costs nothing to fit."""

    settings: dict[str, int]
    scores: Callable[[], Scores]


class Contest(NamedTuple):
    """What the rows of a case share."""

    source: extract.Source
    measure: Callable[[extract.Reward], Scores]
    inputs: dict[str, str]
    """Digests of the stages that the rows read."""
    rivals: dict[str, Rival]


class KnownReward(NamedTuple):
    """A pair whose reward is known."""

    prepare: Callable[[Case], Contest]
    section: Callable[[ConfigDict], ConfigDict]
    """Where ``noises`` and ``probes`` of what trains nothing stand in the config."""
    title: str = ""
    """Of its table, if its models are learned and its reward is one of clean samples:
    every row then varies with the seed. Closed forms share their tables."""


def closed_form(known: pairs.KnownPair) -> KnownReward:
    """Exact models of two laws, judged at noised samples of both."""

    def prepare(case: Case) -> Contest:
        config, schedule = case.config, cosine(case.config.num_steps)
        keys = jax.random.split(jax.random.key(case.seed), 4)
        train_key, base_key, expert_key, key = keys
        count = config.test_samples
        draws = (
            known.sample("base", base_key, count),
            known.sample("expert", expert_key, count),
        )
        x_0 = jnp.concatenate(draws)
        true_fn = lambda x_t, t: known.reward(x_t, schedule.alpha_bar[t])

        def measure(reward: extract.Reward) -> Scores:
            return truth.compare(reward.reward_fn, true_fn, schedule, key, x_0)._asdict()

        source = truth.exact_source(known, schedule, train_key, config.samples)
        return Contest(source, measure, {}, {})

    return KnownReward(prepare, lambda config: config)


def conditional(known: KnownConditionalPair) -> KnownReward:
    """Exact models of two laws given a context, judged within shared contexts."""

    def prepare(case: Case) -> Contest:
        config, schedule = case.config, cosine(case.config.num_steps)
        train_key, draw_key, key = jax.random.split(jax.random.key(case.seed), 3)
        contexts = max(2, config.test_samples // EACH)
        x_0, context = known.sample_within(draw_key, contexts, EACH)
        true_fn = lambda x_t, t: known.reward(x_t, schedule.alpha_bar[t])

        def measure(reward: extract.Reward) -> Scores:
            asked = (reward.reward_fn, true_fn, schedule, key, x_0, known.pinned)
            return {**truth.compare(*asked)._asdict(), page.CONTEXT: np.asarray(context)}

        source = truth.exact_source(known, schedule, train_key, config.samples)
        return Contest(source, measure, {}, {})

    return KnownReward(prepare, lambda config: config)


def maze_windows(case: Case) -> Contest:
    """Against a clean reward, with learned models of real and resampled windows."""
    config, schedule = case.config, cosine(case.config.num_steps)
    models = case.folder("models")
    source, held_out = maze.prepare(config, models, schedule, case.seed)
    known = {"truth": held_out.rewards, "episode": held_out.episode}
    # One noise per level, the same for all: values of training-free rewards are dear.
    size = (config.num_steps, *held_out.x.shape[1:])
    eps = jax.random.normal(jax.random.key(case.seed), size)[:, None]

    def measure(reward: extract.Reward) -> Scores:
        def value(x_0: Array) -> Array:
            levels = jnp.arange(config.num_steps)
            return noised_values(reward.reward_fn, schedule, x_0, levels, eps).mean()

        values = jax.jit(lambda x: jax.lax.map(value, x, batch_size=truth.CHUNK))
        return {"value": np.asarray(values(held_out.x)), **known}

    def counted() -> Scores:
        value = maze.log_visit_ratio(source, held_out.x, config.maze.cells)
        return {"value": value, **known}

    rivals = {COUNTING: Rival({"cells": config.maze.cells}, counted)}
    inputs = {"models": report.stage_digest(models)}
    return Contest(source, measure, inputs, rivals)


MAZE = "maze"
PAIRS: dict[str, KnownReward] = {
    MAZE: KnownReward(
        maze_windows,
        lambda config: config.maze,
        "Maze windows, reward known, models learned",
    ),
    **{name: closed_form(known) for name, known in pairs.known_pairs().items()},
    **{name: conditional(k) for name, k in known_conditional_pairs().items()},
}
"""By the names of ``pairs``."""
