"""Every extractor on every pair with a known reward, at equal compute.

One folder per pair and extractor under --workdir, skipped once finished; run the same
command again after any interruption.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import spearmanr

from configs.common import ConfigDict, choose
from diffreward import card, extract, report
from diffreward.data import pairs
from diffreward.diffusion import cosine
from diffreward.extract import truth
from experiments import launch, leaderboard_maze

ROWS = (
    "gradient_alignment",
    "line_integral",
    "ode_log_ratio",
    "ito_log_ratio",
    *(f"loss_gap:{w}" for w in extract.WEIGHTINGS),
    "discriminator",
    "energy_pair",
    "bradley_terry",
    "return_regression",
)
"""Rows of the tables: an extractor, and after the colon its weighting."""

MAZE = "maze"
PAIRS = (*pairs.known_pairs(), MAZE)


def main(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Runs every pair and extractor that has not finished; returns the report."""
    began = time.time()
    check(config)
    results: dict[str, dict[str, Any]] = {}
    for pair in config.pairs or PAIRS:
        rows = config.extractors or ROWS
        measure = on_maze if pair == MAZE else on_laws
        results[pair] = measure(config, workdir, pair, rows)
    result = {"pairs": results, "training": config.training.to_dict()}
    report.write_json(workdir / "report.json", result)
    page(workdir / "report.md", result)
    print(f"report: {workdir / 'report.md'} ({time.time() - began:.0f} s in this call)")
    return result


def check(config: ConfigDict) -> None:
    """Refuses values that a stage would only meet much later."""
    for name in config.pairs:
        choose("pair", name, PAIRS)
    for name in config.extractors:
        choose("extractor", name, ROWS)
    least = {"num_steps": 2, "samples": 2, "noises": 1, "test_samples": 2}
    for name, value in least.items():
        if config[name] < value:
            raise ValueError(f"{name} must be at least {value}, got {config[name]}")


def settings_of(config: ConfigDict, row: str) -> tuple[str, extract.FitSettings]:
    """Name and settings of one row; the same compute for all that train."""
    name, _, weighting = row.partition(":")
    t = config.training
    settings = extract.FitSettings(
        steps=t.steps,
        batch_size=t.batch_size,
        learning_rate=t.learning_rate,
        width=t.width,
        depth=t.depth,
        weighting=weighting or "elbo",
        noises=config.noises,
        probes=config.probes,
        beta=config.beta,
    )
    return name, settings


def stages(
    config: ConfigDict,
    workdir: Path,
    pair: str,
    rows: tuple[str, ...],
    inputs: dict[str, str],
    measure: Callable[[extract.Reward], dict[str, Any]],
    source: extract.Source,
) -> dict[str, Any]:
    """Fits and measures every row of one pair, each in a stage of its own."""
    results = {}
    for row in rows:
        folder = workdir / pair / row.replace(":", "-")
        name, settings = settings_of(config, row)
        kept = settings._asdict()
        asked = {k: v for k, v in kept.items() if k not in ("network", "schedule")}
        asked |= {n: config[n] for n in ("seed", "num_steps", "samples", "test_samples")}
        if not report.open_stage(folder, {"row": row, **asked}, inputs):
            reward = extract.fit(name, source, settings, seed=config.seed, workdir=folder)
            report.close_stage(folder, {**measure(reward), **reward.cost})
            print(f"{pair}: {row}, {reward.cost['seconds']:.0f} s to fit", flush=True)
        results[row] = report.read_json(folder / "report.json")
    return results


def on_laws(
    config: ConfigDict, workdir: Path, pair: str, rows: tuple[str, ...]
) -> dict[str, Any]:
    """Against a closed form, at noised samples of both laws."""
    known, schedule = pairs.known_pairs()[pair], cosine(config.num_steps)
    train_key, base_key, expert_key, key = jax.random.split(jax.random.key(config.seed), 4)
    count = config.test_samples
    x_0 = jnp.concatenate(
        [known.sample("base", base_key, count), known.sample("expert", expert_key, count)]
    )
    true_fn = lambda x_t, t: known.reward(x_t, schedule.alpha_bar[t])

    def measure(reward: extract.Reward) -> dict[str, Any]:
        found = truth.compare(reward.reward_fn, true_fn, schedule, key, x_0)
        every = truth.agreement(found)
        by_level = [
            truth.agreement(found, slice(t, t + 1)).gradient_error
            for t in range(schedule.num_steps)
        ]
        squared = every.gradient_error**2
        return {
            **every._asdict(),
            "gradient_error_squared": squared,
            "gradient_error_by_level": by_level,
        }

    source = truth.exact_source(known, schedule, train_key, config.samples)
    return stages(config, workdir, pair, rows, {}, measure, source)


def on_maze(
    config: ConfigDict, workdir: Path, pair: str, rows: tuple[str, ...]
) -> dict[str, Any]:
    """Against a clean reward, with learned models of real and resampled windows."""
    schedule = cosine(config.num_steps)
    folder = workdir / pair / "models"
    source, held_out, rewards = leaderboard_maze.prepare(config, folder, schedule)
    key = jax.random.key(config.seed)

    def measure(reward: extract.Reward) -> dict[str, Any]:
        # One noise per level, the same for all: values of training-free rewards are dear.
        score = lambda x: card.score(reward, x, key, 1, as_="ranking")
        scores = jax.jit(lambda x: jax.lax.map(score, x, batch_size=truth.CHUNK))
        value = np.asarray(scores(held_out))
        return {"rank_correlation": float(spearmanr(value, rewards).statistic)}

    inputs = {"models": report.stage_digest(folder)}
    return stages(config, workdir, pair, rows, inputs, measure, source)


def page(path: Path, result: dict[str, Any]) -> None:
    """Writes the tables."""
    results = result["pairs"]
    laws = {pair: rows for pair, rows in results.items() if pair != MAZE}
    names = list(next(iter(results.values())))
    t = result["training"]
    parts = [
        "# Extractors on pairs with a known reward\n",
        f"Trained extractors: {t['steps']} steps of batch {t['batch_size']}, width "
        f"{t['width']}. The others train nothing. Errors in percent, with a standard "
        "error over test samples.\n",
    ]
    kinds: tuple[tuple[str, Callable[[Any], str]], ...] = (
        ("Gradient error", _gradient),
        ("Error of the log ratio", lambda r: f"{100 * r['value_error']:.1f}"),
        ("Rank correlation", lambda r: f"{r['rank_correlation']:.3f}"),
    )
    for title, cell in kinds if laws else ():
        lines = [(row, *(cell(r[row]) for r in laws.values())) for row in names]
        parts += [f"## {title}\n", report.markdown(("extractor", *laws), lines), ""]
    if MAZE in results:
        lines = [(row, f"{r['rank_correlation']:.3f}") for row, r in results[MAZE].items()]
        header = ("extractor", "rank correlation")
        parts += ["## Maze windows, reward known, models learned\n"]
        parts += [report.markdown(header, lines), ""]
    lines = [(row, *_costs([r[row] for r in results.values()])) for row in names]
    header = ("extractor", "seconds to fit", "evaluations to fit", "evaluations per value")
    parts += ["## Cost, mean over pairs\n", report.markdown(header, lines), ""]
    partial = path.with_name(path.name + ".partial")
    partial.write_text("\n".join(parts), encoding="utf-8")
    partial.replace(path)


def _gradient(row: dict[str, Any]) -> str:
    return f"{100 * row['gradient_error']:.2f} ± {100 * row['gradient_error_se']:.2f}"


def _costs(rows: list[dict[str, Any]]) -> list[str]:
    keys = ("seconds", "evaluations", "evaluations_per_value")
    return [f"{np.mean([r[k] for r in rows]):,.0f}" for k in keys]


if __name__ == "__main__":
    launch.run(main, "configs/leaderboard.py", "runs/leaderboard", __doc__)
