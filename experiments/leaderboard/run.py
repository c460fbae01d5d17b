"""Every extractor on every pair with a known reward, at equal steps, batch and width.

One folder per pair, seed and extractor under --workdir, skipped once finished; run the
same command again after any interruption.
"""

import time
from pathlib import Path
from typing import Any

from configs.common import ConfigDict, choose
from diffreward import extract, report
from diffreward.data import write_arrays
from diffreward.text import say
from experiments.leaderboard import page
from experiments.leaderboard.case import PAIRS, Case, Scores

ROWS = (
    "gradient_alignment",
    "line_integral",
    "ode_log_ratio",
    "ito_log_ratio",
    *(f"loss_gap:{w}" for w in extract.WEIGHTINGS),
    "discriminator",
    "energy_pair",
    "distilled_energies",
    "residual_alignment",
    "bradley_terry",
    "return_regression",
)
"""Rows of the tables: an extractor, and after the colon its weighting."""


def main(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Runs every pair, seed and extractor that has not finished; returns the report."""
    began = time.time()
    check(config)
    found: page.Found = {}
    for seed in range(config.seed, config.seed + config.seeds):
        for pair in config.pairs or PAIRS:
            for row, folder in run_case(Case(config, workdir, pair, seed)).items():
                found.setdefault(pair, {}).setdefault(row, []).append(folder)
    # Tables of their own, with a title, for what is no closed form.
    titles = {name: kind.title for name, kind in PAIRS.items() if kind.title}
    laws = {pair: rows for pair, rows in found.items() if pair not in titles}
    result = {
        "training": config.training.to_dict(),
        "seeds": config.seeds,
        "laws": {
            pair: {row: page.law_row(folders) for row, folders in rows.items()}
            for pair, rows in laws.items()
        },
        **{n: page.clean_rows(found[n]) if n in found else {} for n in titles},
        "costs": page.costs(found, titles),
    }
    report.write_json(workdir / "report.json", result)
    page.write(workdir, result, titles)
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


def settings_of(config: ConfigDict, pair: str, row: str) -> dict[type, Any]:
    """Settings by their record; equal steps, batch and width for all that train."""
    t, values = config.training, PAIRS[pair].section(config)
    weighting = row.partition(":")[2] or "elbo"
    records = (
        extract.Training(
            steps=t.steps,
            batch_size=t.batch_size,
            learning_rate=t.learning_rate,
            width=t.width,
            depth=t.depth,
        ),
        extract.LossGap(weighting, beta=config.beta, noises=values.noises),
        extract.OdeLogRatio(probes=values.probes),
        extract.ItoLogRatio(noises=values.noises),
        extract.LineIntegral(),
    )
    return {type(record): record for record in records}


def asked_of(config: ConfigDict, pair: str, row: str) -> dict[str, Any]:
    """What a stage is known by: the figures of its whole case, whichever its row reads."""
    records = settings_of(config, pair, row).values()
    figures = {k: v for record in records for k, v in record._asdict().items()}
    del figures["network"]  # always the perceptron of that width and depth
    return figures | {n: config[n] for n in ("num_steps", "samples", "test_samples")}


def rows_of(case: Case) -> list[str]:
    """The rows of one case: all that vary with its seed."""
    rows = case.config.extractors or ROWS
    # Models of a closed form are exact: only what is trained varies with a seed.
    every = PAIRS[case.pair].title or case.seed == case.config.seed
    return [r for r in rows if every or extract.EXTRACTORS[r.partition(":")[0]].trains]


def run_case(case: Case) -> dict[str, Path]:
    """Fits and measures every row of one case, each in a stage of its own."""
    config, seed, folders = case.config, case.seed, {}
    source, measure, inputs, rivals = PAIRS[case.pair].prepare(case)
    for row, rival in rivals.items():
        folder = folders[row] = case.folder(row)
        if not report.open_stage(folder, {**rival.settings, "seed": seed}, inputs):
            close(folder, rival.scores(), dict.fromkeys(page.COSTS, 0.0))
    for row in rows_of(case):
        folder = folders[row] = case.folder(row)
        name = row.partition(":")[0]
        asked = {"row": row, "seed": seed, **asked_of(config, case.pair, row)}
        if not report.open_stage(folder, asked, inputs):
            kind = extract.EXTRACTORS[name].settings
            settings = settings_of(config, case.pair, row)[kind]
            reward = extract.fit(name, source, settings, seed=seed, workdir=folder)
            close(folder, measure(reward), reward.cost)
    return folders


def close(folder: Path, scores: Scores, cost: dict[str, float]) -> None:
    """Keeps what a reward said of every test sample, for the tables and intervals."""
    write_arrays(folder / "scores.npz", scores)
    report.close_stage(folder, cost)
    say(f"{folder}: {cost['seconds']:.0f} s to fit")
