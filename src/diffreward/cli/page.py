"""A card as a page of Markdown."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

from diffreward import card
from diffreward.report import Markup, markdown
from diffreward.reward import UNITS
from diffreward.text import markdown_code, markdown_text

NAMES = {
    "fraction_of_variance_unexplained": "fraction of variance unexplained (0 is best)",
    "agreement_correlation": "correlation with the training-free log ratio",
    "agreement_slope": "log ratio per nat of reward (1 is calibrated)",
    "agreement_rank_correlation": "rank correlation with the log ratio",
    "auroc": "AUROC, expert against base samples",
    "auroc_within_conditions": "expert samples above a base draw of the same condition "
    "(AUROC)",
    "samples": "held-out samples",
    "groups": "held-out episodes",
}


def page(folder: str | Path) -> str:
    """The page of the card in ``folder``, every file of which is held against the card.

    Raises:
        ValueError: if it is no card, or damaged.
    """
    folder = Path(folder)
    reward, about = card.open_card(folder)
    same = card.verify(folder, about, reward)
    rows: list[list[Any]] = [
        [NAMES[name], value] for name, value in about["measures"].items() if name in NAMES
    ]
    units = UNITS[about["units"]]
    lines = [
        f"# Reward card: {markdown_text(folder.resolve().name)}",
        "",
        f"Extracted by {markdown_code(about['extractor'])} as "
        f"{markdown_code(about['network']['name'])}; samples are shaped "
        f"{tuple(about['shape'])}. Its values are {markdown_text(units)}.",
        "",
        _program(about, same),
        "",
    ]
    if rows:
        lines += [markdown(["measure", Markup("value [95 % interval]")], rows), ""]
    for figure in about["figures"]:
        lines += [f"![{markdown_text(figure)}](figures/{quote(figure)})", ""]
    if about["limits"]:
        limits = (f"- {markdown_text(limit)}" for limit in about["limits"])
        lines += ["## Limits", "", *limits, ""]
    if about["provenance"]:
        lines += ["## Provenance", ""]
        lines += [
            f"- {markdown_text(name)}: {_short(what)}"
            for name, what in about["provenance"].items()
        ]
        lines.append("")
    return "\n".join(lines)


def _program(about: dict[str, Any], same: bool) -> str:
    """What can be said of ``score.py``."""
    if about["score_sha256"] is None:
        return "There is no NumPy program."
    if same:
        return "`score.py` is the program that this reward makes."
    versions = f"diffreward {about['diffreward']} and JAX {about['jax']}"
    return (
        f"`score.py` was made by {markdown_text(versions)}; this version makes another "
        "program and cannot vouch for it. Read it before you run it."
    )


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{markdown_text(k)} {_short(v)}" for k, v in value.items())
    return markdown_code(value)
