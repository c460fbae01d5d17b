"""Locomotion with one thing changed at a time, and one table of what that does.

Every study is a run of experiments.locomotion in a folder under --workdir, skipped once
finished; run the same command again after any interruption.
"""

import shutil
import time
from pathlib import Path
from typing import Any

from configs import locomotion as configs
from configs.common import ConfigDict, choose
from diffreward import files, report
from diffreward.report import Markup, interval, markdown
from diffreward.text import say
from experiments import launch, limits
from experiments.locomotion import run as locomotion
from experiments.locomotion.page import guidance
from experiments.locomotion.rows import MEANING as MEANING_OF_ROWS

FIRST = "none"
"""The study that changes nothing; the others are compared with it."""
PAIR = ("data", "model", "base", "expert", "expert_model")
READS = {
    "data": ("data",),
    "base": ("data", "model", "base"),
    "expert": PAIR,
    **{name: (*PAIR, "start", name) for name in ("rewards", "paper_rewards")},
}
"""Stages that studies may share, and the sections of the config that each depends on."""
OVERRIDES = {
    "reward_steps": "rewards.steps",
    "seeds": "rewards.seeds paper_rewards.seeds",
    "episodes": "evaluation.episodes",
    "validation_episodes": "evaluation.validation_episodes",
    "scales": "evaluation.scales",
    "rows": "evaluation.rows",
    "transitions": "data.transitions",
}
"""Keys of ``shared``, and those of the locomotion config that they stand for."""
MEANING = {
    "none": "nothing changed",
    "transfer": "rewards steer a base of another seed",
    "medium-base": "base of medium data",
    "small-data": "a tenth of the transitions",
    "no-data": "rewards from samples of the two models alone",
    "high-rate": "rewards at five times the learning rate",
    "low-rate": "rewards at a fifth of it",
    "clipped": "gradients of rewards clipped to 0.2 per entry",
    "scratch-expert": "expert does not start at the base",
    "unet-expert": "expert a U-Net that is no gradient of an energy",
    "no-energy": "neither model is; the base is distilled first",
    "clipped-weights": "published loss: weights clipped to 3",
    "l2": "published loss: L2 penalty of 2e-4",
    "noised": "base of data in fixed noise of 0.5 deviations",
    "short-base": "base with a tenth of the steps",
    "grid": "published guidance: last levels and scales as swept",
    "inner": "rewards that start at nothing",
    "longer": "three times the steps of the reward",
    "wsd": "constant rate, then decay",
    "chain-kl": "loss weighted by the KL of the guided chain",
    "relative": "loss relative to each state's own difference",
    "visited": "two more rounds on what the steered base met",
    "ten-evaluations": "ten evaluations of the network per plan",
    "all-levels": "one at every level",
    "candidates": "best of eight plans, and particles",
}
"""What each study changes."""


def main(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Runs every study that has not finished; returns the report."""
    began, studies = time.time(), check(config)
    found = {}
    for study in studies:
        say(f"study {study}: {MEANING[study]}")
        own = study_config(config, study)
        if study != FIRST:
            share(study_config(config, FIRST), workdir / FIRST, own, workdir / study)
        found[study] = locomotion.main(own, workdir / study)
        # After each, so that hours of a list that is not done yet can be read.
        result = {"task": config.task, "studies": found}
        report.write_json(workdir / "report.json", result)
        report.write_report(workdir, page(config, found))
    say(f"report: {workdir / 'report.md'} ({time.time() - began:.0f} s in this call)")
    return result


def check(config: ConfigDict) -> list[str]:
    """The studies of a config, the first one always.

    Raises:
        ValueError: for a name of no study, or values that a study would only meet later.
    """
    limits.check_seed(config.seed)
    for name in config.studies:
        choose("study", name, configs.STUDIES)
    asked = {FIRST, *(config.studies or configs.STUDIES)}
    studies = [name for name in configs.STUDIES if name in asked]
    for study in studies:
        locomotion.check(study_config(config, study))
    return studies


def study_config(config: ConfigDict, study: str) -> ConfigDict:
    """The locomotion config of one study: what it changes itself is left alone."""
    preset = f"{config.task},{config.preset}"
    plain, own = (configs.get_config(f"{preset},{s}") for s in (FIRST, study))
    with own.unlocked():
        own.seed = config.seed
        for key, places in OVERRIDES.items():
            for section, name in (place.split(".") for place in places.split()):
                changed = own[section][name], plain[section][name]
                if changed[0] == changed[1]:
                    own[section][name] = config.shared[key]
                elif name == "steps":  # as many times as the study asks for
                    own[section][name] = config.shared[key] * changed[0] // changed[1]
    return own


def share(plain: ConfigDict, first: Path, own: ConfigDict, folder: Path) -> None:
    """Copies the finished stages of the first study that another one would repeat."""
    for stage, sections in READS.items():
        alike = lambda section: used(plain[section]) == used(own[section])
        if not all(map(alike, sections)) or (folder / stage).exists():
            continue
        with files.writing(folder / stage) as made:
            shutil.copytree(first / stage, made)


def used(section: ConfigDict) -> dict[str, Any]:
    """What of a section decides the stage of its name: rounds make others."""
    return {k: v for k, v in section.to_dict().items() if k not in ("rounds", "visits")}


def page(config: ConfigDict, found: dict[str, Any]) -> str:
    """The report as Markdown."""
    columns = (
        "study",
        "",
        "FVU, data",
        "FVU, crossed",
        "base",
        "expert",
        "score, scale 1",
        "gap closed [95 %]",
        "published loss",
        "scale",
        "exact published guidance",
    )

    def line(study: str, result: dict[str, Any]) -> tuple[str, ...]:
        methods, reward = result["methods"], result["rewards"]["rewards"]
        score = lambda name: f"{methods[name]['score'][0]:.1f}" if name in methods else ""
        means = methods.get("means")
        return (
            study,
            Markup(MEANING[study]),
            f"{reward['fvu']:.3f}",
            f"{reward['steered_fvu']:.3f}",
            score("unsteered"),
            score("expert"),
            score("score"),
            interval(methods["score"]["gap_closure"]),
            score("means"),
            guidance("means", means) if means else "",
            score("means-exact"),
        )

    shared = config.shared
    table = markdown(tuple(map(Markup, columns)), [line(*row) for row in found.items()])
    text = f"""# One thing changed at a time: {config.task}

{table}

Normalised scores. {shared.seeds} seeds of a reward, {shared.episodes} episodes each, and
{shared.reward_steps:,} steps of training; intervals by Student's t over the means of seeds,
so with two seeds they are wide. Scale and last level of the published guidance are chosen
on {shared.validation_episodes} other episodes per seed. Studies of one row differ from the
first in one thing, and share its base and expert where that is not what they change.
"""
    if any("score-chosen" in r["methods"] for r in found.values()):
        text += steering(found)
    tried = found.get("grid", {}).get("methods", {}).get("means", {}).get("tried")
    return text + (grid(tried) if tried else "")


EXTRA = ("best-of-n", "best-steered", "smc")
"""Rows of the study of candidates."""


def steering(found: dict[str, Any]) -> str:
    """What the errors of a reward are like, and what they do at other scales."""
    scales = sorted({s for r in found.values() for _, s, _ in chosen(r)["tried"]})

    def line(study: str, result: dict[str, Any]) -> tuple[str, ...]:
        reward, score = result["rewards"]["rewards"], result["methods"]["score"]
        tried = {s: mean for _, s, mean in chosen(result)["tried"]}
        share = lambda name: f"{reward[name]:.3f}" if name in reward else ""
        return (
            study,
            *map(share, ("fvu", "steered_fvu", "visited_fvu")),
            *map(share, ("pull", "steered_pull", "visited_pull")),
            f"{score['failure']:.0f}",
            *(f"{tried[s]:.0f}" if s in tried else "" for s in scales),
            f"{score['steps_per_second']:.0f}",
        )

    columns = (
        "study",
        *(f"FVU, {where}" for where in ("data", "crossed", "visited")),
        *(f"pull, {where}" for where in ("data", "crossed", "visited")),
        "steps to failure, median",
        *(f"return at {s:g}" for s in scales),
        "steps/s",
    )
    lines = [line(*row) for row in found.items()]
    methods = found.get("candidates", {}).get("methods", {})

    def item(name: str, row: dict[str, Any]) -> str:
        closed, speed = interval(row["gap_closure"]), row["steps_per_second"]
        score = f"score {row['score'][0]:.1f}, gap closed {closed}, {speed:.0f} steps/s"
        return f"- `{name}`, {MEANING_OF_ROWS[name]}: {score}"

    more = "\n".join(item(name, methods[name]) for name in EXTRA if name in methods)
    return f"""
## How the errors steer

{markdown(tuple(map(Markup, columns)), lines)}

Pull: share of the difference that the reward leaves out along the difference itself.
Visited: plans from the states that episodes steered by the first seed's reward met. Mean
returns at a scale are of validation episodes.

{more}
"""


def chosen(result: dict[str, Any]) -> dict[str, Any]:
    """The row whose scale validation episodes chose."""
    return result["methods"].get("score-chosen", {"tried": []})


def grid(tried: list[tuple[float, float, float]]) -> str:
    """Returns on validation episodes by last level guided and scale."""
    levels, scales = (sorted({row[i] for row in tried}) for i in (0, 1))
    value = {(level, scale): mean for level, scale, mean in tried}
    lines = [
        (Markup(f"t >= {level:g}"), *(f"{value[level, s]:.0f}" for s in scales))
        for level in levels
    ]
    table = markdown(("guided levels", *(f"scale {s:g}" for s in scales)), lines)
    return f"""
## Published guidance: mean return on validation episodes

{table}
"""


if __name__ == "__main__":
    launch.run(main, "configs/ablations.py", "runs/ablations", __doc__)
