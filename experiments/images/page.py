"""The audit as a page: numbers, distributions, and the pictures behind them."""

from pathlib import Path
from typing import Any

import numpy as np

from diffreward import report
from diffreward.report import Gallery, Picture
from diffreward.text import markdown_code, markdown_text
from experiments.images import drawings
from experiments.images.build import Run
from experiments.images.drawings import Decode, units
from experiments.images.pair import ImagePair
from experiments.images.scorers import CHUNK


def write(run: Run, result: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Writes ``report.md``, its figures, and the page that people open."""
    lines = [*head(result), *level_text(), *slice_text(result), *sample_text(result)]
    if "audience" in result:
        lines += audience_text(result["audience"])
    lines += [*content_text(result), *steering_text(result), *cut_text(run.pair)]
    lines += trust_text(result)
    lines += ["Settings stand in `*/config.json`, numbers in `report.json`.", ""]
    draw(run.workdir / "figures", run, result, arrays)
    report.write_report(run.workdir, "\n".join(lines), gallery(run, arrays))


def draw(
    folder: Path, run: Run, result: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    """The pictures that the text shows."""
    shown, decode = run.config.audit.shown, run.pair.decode
    drawings.draw_distributions(folder / "rewards.png", result, arrays)
    drawings.draw_levels(folder / "levels.png", result)
    drawings.draw_extremes(folder / "samples.png", arrays, decode, shown)
    if "audience" in result:
        drawings.draw_audience(folder / "held_out.png", arrays, decode, shown)
    if "steering" in result:
        names = [r["name"] for r in result["steering"]]
        found = {n: arrays[f"steered {n}"] for n in names}
        asked = run.pair.avoided
        order = np.unique(arrays["request"])
        first = np.arange(len(order)) if asked is None else np.argsort(~asked[order])
        drawings.draw_steered(folder / "steering.png", found, first[:shown], decode)


def gallery(run: Run, arrays: dict[str, np.ndarray]) -> Gallery:
    """The highest and the lowest of every kind of sample, with their prompts."""
    rewards, request = arrays["rewards"], arrays["request"]
    model = np.where(arrays["is_expert"], "expert", "base")
    prompts, columns = run.pair.prompts, kinds(run.pair)
    facts = [
        {"model": str(m), **{n: cells[int(i)] for n, cells in columns.items()}}
        for m, i in zip(model, request, strict=True)
    ]
    own = run.config.audit.gallery
    groups: dict[tuple[str, ...], list[int]] = {}
    for i in np.argsort(-rewards, kind="stable"):
        groups.setdefault(tuple(facts[i].values()), []).append(int(i))
    each = max(1, own // (2 * len(groups)))
    ends = ({*rows[:each], *rows[-each:]} for rows in groups.values())
    chosen = sorted({i for rows in ends for i in rows})[:own]
    shown = decoded(run.pair.decode, arrays["x_0"][chosen])
    return Gallery(
        "Samples, by reward",
        f"The highest and the lowest of every kind, {len(chosen)} of {len(rewards)}. A "
        "filter stays in the address, so that a selection can be sent to somebody.",
        [
            Picture(image, prompts.text[int(request[i])], float(rewards[i]), facts[i])
            for i, image in zip(chosen, shown, strict=True)
        ],
    )


def kinds(pair: ImagePair) -> dict[str, list[str]]:
    """Columns of the prompts with few different values, whole."""
    few = lambda cells: 1 < len(set(cells)) <= 12 and len(set(cells)) < len(cells)
    return {n: cells for n, cells in pair.prompts.columns.items() if few(cells)}


def decoded(decode: Decode, latents: np.ndarray) -> list[np.ndarray]:
    """Pictures of latents, some at a time."""
    parts = [decode(latents[i : i + CHUNK]) for i in range(0, len(latents), CHUNK)]
    return [picture for part in parts for picture in part]


def auroc(found: dict[str, Any]) -> str:
    """The AUROC of a record with its interval."""
    return report.interval(found["auroc"], ".3f")


def head(result: dict[str, Any]) -> list[str]:
    """What was asked, and the first answer."""
    found = [
        ["AUROC, samples of the expert against the base", auroc(result)],
        ["mean reward of the base's samples", f"{result['base']['mean']:.2f}"],
        ["mean reward of the expert's samples", f"{result['expert']['mean']:.2f}"],
        [
            "variance of the models' difference left unexplained, mean over levels",
            f"{np.mean(result['fvu']):.3f}",
        ],
    ]
    return [
        f"# Audit: {markdown_text(result['pair'])}",
        "",
        "The reward was learned from the two models' outputs alone: its gradient is what",
        f"the expert would change about the base's picture. {units(result).sentence}",
        f"Everything below is on {result['requests']} requests that no training has seen.",
        "",
        report.markdown(["what", "value"], found),
        "",
        "![rewards](figures/rewards.png)",
        "",
    ]


def level_text() -> list[str]:
    """Coarse against fine."""
    return [
        "## Coarse and fine preferences",
        "",
        "High noise levels leave only the layout of a picture, low ones its details. Where",
        "the curve is high, that is where the two models differ.",
        "",
        "![levels](figures/levels.png)",
        "",
    ]


def slice_text(result: dict[str, Any]) -> list[str]:
    """By column of metadata, if there is any."""
    if not result["slices"]:
        return []
    rows = [
        [
            r["column"],
            r["value"],
            str(r["requests"]),
            report.interval(r["base"]),
            report.interval(r["difference"]),
        ]
        for r in result["slices"]
    ]
    header = ["column", "value", "requests", "reward of the base", "expert minus base"]
    return ["## By kind of request", "", report.markdown(header, rows), ""]


def sample_text(result: dict[str, Any]) -> list[str]:
    """Most and least preferred samples."""
    near, among = (result["nearest"][n] for n in ("to_training", "among_training"))
    return [
        "## Most and least preferred samples of both models",
        "",
        "Top rows: highest reward, best first; bottom rows: lowest, worst first.",
        "",
        "![samples](figures/samples.png)",
        "",
        f"Nearest sample the training has seen: {near['mean']:.3f} away on average (root",
        "mean square of the difference); for a training sample, the nearest other one is",
        f"{among['mean']:.3f} away.",
        "Equal distances mean that the ranking is not a matter of having been seen.",
        "",
    ]


def cut_text(pair: ImagePair) -> list[str]:
    """Prompts of which the models have read the beginning only."""
    if not pair.cut:
        return []
    prompts = [f"- {i + 1}: {markdown_code(pair.prompts.text[i])}" for i in pair.cut]
    return [
        "## Prompts that were cut",
        "",
        f"{len(prompts)} of {len(pair.prompts.text)} prompts are longer than the text",
        "encoder reads; what they say beyond that no model has seen.",
        "",
        *prompts,
        "",
    ]


def content_text(result: dict[str, Any]) -> list[str]:
    """What the reward knows of what is avoided, beside its rivals."""
    found = result.get("content")
    if not found:
        return []
    header = ["kept above avoided", "kept", "avoided", *found["scores"]]
    rows = [
        [
            row["name"],
            str(row["preferred"]),
            str(row["avoided"]),
            *(report.interval(row[name], ".3f") for name in found["scores"]),
        ]
        for row in found["groups"]
    ]
    return [
        "## Does it know what the expert avoids?",
        "",
        "AUROC of what the expert is meant to keep against what it is meant to avoid, by",
        "the reward and by what is simpler: a classifier of both models' samples, and the",
        "two models' denoising errors with nothing trained. No score has seen a kind.",
        "",
        report.markdown(header, rows),
        "",
    ]


def steering_text(result: dict[str, Any]) -> list[str]:
    """How much of what is avoided is drawn, and at which cost."""
    rows = result.get("steering")
    if not rows:
        return []
    columns = [n for n in rows[0] if n not in ("name", "requests")]
    table = [
        [row["name"], *(report.interval(row[n], ".3f") for n in columns)] for row in rows
    ]
    own = result["judge"]
    judged = (
        f"Its balanced accuracy on {own['pictures']} real pictures it has not seen is "
        f"{report.interval(own['balanced_accuracy'], '.3f')}."
        if own
        else "It was not tested."
    )
    return [
        "## What is drawn, and what steering changes",
        "",
        "Shares of samples in which a judge sees what is to be avoided, on the same",
        "requests and noises. The judge is a classifier of real pictures that knows no",
        f"model. {judged} *reward x 1* adds the reward's gradient to the base at scale 1.",
        "Kernel distance, precision and recall compare samples that were not asked to",
        "show what is avoided with real pictures: recall is variety.",
        "",
        report.markdown(["model", *columns], table),
        "",
        "![steering](figures/steering.png)",
        "",
    ]


def trust_text(result: dict[str, Any]) -> list[str]:
    """What the numbers above cannot say."""
    near, among = (result["nearest"][n]["mean"] for n in ("to_training", "among_training"))
    lost = float(np.mean(result["fvu"]))
    points = [
        f"It leaves {lost:.0%} of the models' difference unexplained, on states that no "
        "training has seen. What it says of a single sample can be that far off.",
        f"One pair, one seed, {result['requests']} requests. Intervals resample requests "
        "or pictures, not the training of the models or of the reward.",
        f"Samples lie {near / among:.2f} times as far from what was trained on as that "
        "does from itself; well above 1, the reward is asked about the unknown.",
        "It is the difference of two models, not a judgement: what both draw, or both "
        "avoid, it does not see.",
    ]
    best = result.get("content", {}).get("groups", [])
    points += [
        f"On {markdown_text(row['name'])} {rival} does better "
        f"({row[rival][0]:.3f} against {row['reward'][0]:.3f})."
        for row in best
        for rival in result["content"]["scores"]
        if row[rival][0] > row["reward"][0]
    ]
    return ["## How far to trust this", "", *(f"- {point}" for point in points), ""]


def audience_text(found: dict[str, Any]) -> list[str]:
    """Held-out images in two known groups."""
    rows = [
        [
            name,
            "yes" if c["preferred"] else "no",
            f"{c['mean']:.2f}",
            f"{c['deviation']:.2f}",
        ]
        for name, c in sorted(found["by_class"].items(), key=lambda item: -item[1]["mean"])
    ]
    return [
        "## Held-out images of known kind",
        "",
        f"{found['images']} real images that neither model has seen. AUROC of those the",
        f"expert was meant to prefer against the others: **{auroc(found)}**.",
        "",
        report.markdown(["class", "preferred", "mean reward", "deviation"], rows),
        "",
        "![held out](figures/held_out.png)",
        "",
    ]
