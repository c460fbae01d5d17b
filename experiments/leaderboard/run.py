"""Every extractor on every pair with a known reward, at equal steps, batch and width.

One folder per pair, seed and extractor under --workdir, skipped once finished; run the
same command again after any interruption.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from configs.common import ConfigDict, choose
from diffreward import extract, report
from diffreward.data import pairs, write_arrays
from diffreward.diffusion import cosine
from diffreward.extract import truth
from diffreward.reward import noised_values
from diffreward.text import say
from experiments.leaderboard import maze, page

TRAINED = (
    "gradient_alignment",
    "discriminator",
    "energy_pair",
    "bradley_terry",
    "return_regression",
)
ROWS = (
    "gradient_alignment",
    "line_integral",
    "ode_log_ratio",
    "ito_log_ratio",
    *(f"loss_gap:{w}" for w in extract.WEIGHTINGS),
    *TRAINED[1:],
)
"""Rows of the tables: an extractor, and after the colon its weighting."""

MAZE = "maze"
PAIRS = (MAZE, *pairs.known_pairs())
COUNTING = "counting"
"""The row of visits alone, beside the extractors of the maze."""

Scores = dict[str, np.ndarray]
Measure = Callable[[extract.Reward], Scores]


def main(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Runs every pair, seed and extractor that has not finished; returns the report."""
    began = time.time()
    check(config)
    found: dict[str, dict[str, list[Path]]] = {}
    for seed in range(config.seed, config.seed + config.seeds):
        for pair in config.pairs or PAIRS:
            # Models of a closed form are exact: only what is trained varies with a seed.
            every = pair == MAZE or seed == config.seed
            rows = config.extractors or ROWS
            rows = [r for r in rows if every or r in TRAINED]
            run = on_maze if pair == MAZE else on_laws
            for row, folder in run(config, workdir, pair, seed, rows).items():
                found.setdefault(pair, {}).setdefault(row, []).append(folder)
    laws = {pair: rows for pair, rows in found.items() if pair != MAZE}
    result = {
        "training": config.training.to_dict(),
        "seeds": config.seeds,
        "laws": {
            pair: {row: page.law_row(folders) for row, folders in rows.items()}
            for pair, rows in laws.items()
        },
        "maze": page.maze_rows(found[MAZE]) if MAZE in found else {},
        "costs": page.costs(found),
    }
    report.write_json(workdir / "report.json", result)
    page.write(workdir / "report.md", result)
    say(f"report: {workdir / 'report.md'} ({time.time() - began:.0f} s in this call)")
    return report.read_json(workdir / "report.json")


def check(config: ConfigDict) -> None:
    """Refuses values that a stage would only meet much later."""
    for name in config.pairs:
        choose("pair", name, PAIRS)
    for name in config.extractors:
        choose("extractor", name, ROWS)
    least = {"num_steps": 2, "samples": 2, "noises": 1, "test_samples": 2, "seeds": 1}
    for name, value in least.items():
        if config[name] < value:
            raise ValueError(f"{name} must be at least {value}, got {config[name]}")


def settings_of(config: ConfigDict, pair: str, row: str) -> tuple[str, extract.FitSettings]:
    """Name and settings of one row; equal steps, batch and width for all that train."""
    name, _, weighting = row.partition(":")
    t, values = config.training, config.maze if pair == MAZE else config
    settings = extract.FitSettings(
        steps=t.steps,
        batch_size=t.batch_size,
        learning_rate=t.learning_rate,
        width=t.width,
        depth=t.depth,
        weighting=weighting or "elbo",
        noises=values.noises,
        probes=values.probes,
        beta=config.beta,
    )
    return name, settings


def stages(
    config: ConfigDict,
    workdir: Path,
    pair: str,
    seed: int,
    rows: list[str],
    inputs: dict[str, str],
    measure: Measure,
    source: extract.Source,
) -> dict[str, Path]:
    """Fits and measures every row of one pair and seed, each in a stage of its own."""
    folders = {}
    for row in rows:
        folder = folders[row] = stage_folder(workdir, pair, seed, row)
        name, settings = settings_of(config, pair, row)
        kept = settings._asdict()
        asked = {k: v for k, v in kept.items() if k not in ("network", "schedule")}
        asked |= {n: config[n] for n in ("num_steps", "samples", "test_samples")}
        if not report.open_stage(folder, {"row": row, "seed": seed, **asked}, inputs):
            reward = extract.fit(name, source, settings, seed=seed, workdir=folder)
            close(folder, measure(reward), reward.cost)
    return folders


def stage_folder(workdir: Path, pair: str, seed: int, row: str) -> Path:
    """Where one row of one seed is kept."""
    return workdir / pair / f"seed_{seed}" / row.replace(":", "-")


def close(folder: Path, scores: Scores, cost: dict[str, float]) -> None:
    """Keeps what a reward said of every test sample, for the tables and intervals."""
    write_arrays(folder / "scores.npz", scores)
    report.close_stage(folder, cost)
    say(f"{folder}: {cost['seconds']:.0f} s to fit")


def on_laws(
    config: ConfigDict, workdir: Path, pair: str, seed: int, rows: list[str]
) -> dict[str, Path]:
    """Against a closed form, at noised samples of both laws."""
    known, schedule = pairs.known_pairs()[pair], cosine(config.num_steps)
    train_key, base_key, expert_key, key = jax.random.split(jax.random.key(seed), 4)
    count = config.test_samples
    x_0 = jnp.concatenate(
        [known.sample("base", base_key, count), known.sample("expert", expert_key, count)]
    )
    true_fn = lambda x_t, t: known.reward(x_t, schedule.alpha_bar[t])

    def measure(reward: extract.Reward) -> Scores:
        return truth.compare(reward.reward_fn, true_fn, schedule, key, x_0)._asdict()

    source = truth.exact_source(known, schedule, train_key, config.samples)
    return stages(config, workdir, pair, seed, rows, {}, measure, source)


def on_maze(
    config: ConfigDict, workdir: Path, pair: str, seed: int, rows: list[str]
) -> dict[str, Path]:
    """Against a clean reward, with learned models of real and resampled windows."""
    schedule = cosine(config.num_steps)
    models = workdir / pair / f"seed_{seed}" / "models"
    source, held_out = maze.prepare(config, models, schedule, seed)
    known = {"truth": held_out.rewards, "episode": held_out.episode}
    # One noise per level, the same for all: values of training-free rewards are dear.
    eps = jax.random.normal(
        jax.random.key(seed), (config.num_steps, *held_out.x.shape[1:])
    )[:, None]

    def measure(reward: extract.Reward) -> Scores:
        def value(x_0: Array) -> Array:
            levels = jnp.arange(config.num_steps)
            return noised_values(reward.reward_fn, schedule, x_0, levels, eps).mean()

        values = jax.jit(lambda x: jax.lax.map(value, x, batch_size=truth.CHUNK))
        return {"value": np.asarray(values(held_out.x)), **known}

    inputs = {"models": report.stage_digest(models)}
    folder, cells = stage_folder(workdir, pair, seed, COUNTING), config.maze.cells
    if not report.open_stage(folder, {"cells": cells, "seed": seed}, inputs):
        value = maze.log_visit_ratio(source, held_out.x, cells)
        close(folder, {"value": value, **known}, dict.fromkeys(page.COSTS, 0.0))
    found = stages(config, workdir, pair, seed, rows, inputs, measure, source)
    return {COUNTING: folder, **found}
