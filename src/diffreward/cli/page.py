"""A card as a page of Markdown."""

from pathlib import Path
from typing import Any

from diffreward.card import read_card
from diffreward.report import markdown

NAMES = {
    "fraction_of_variance_unexplained": "fraction of variance unexplained (0 is best)",
    "agreement_correlation": "correlation with the training-free log ratio",
    "agreement_slope": "log ratio per nat of reward (1 is calibrated)",
    "agreement_rank_correlation": "rank correlation with the log ratio",
    "auroc": "AUROC, expert against base samples",
    "samples": "held-out samples",
    "groups": "held-out episodes",
}


def page(folder: str | Path) -> str:
    """The page of the card in ``folder``.

    Raises:
        ValueError: if it is no card.
    """
    card = read_card(folder)
    rows: list[list[Any]] = [
        [NAMES[name], value] for name, value in card["measures"].items() if name in NAMES
    ]
    lines = [f"# Reward card: {Path(folder).name}", ""]
    network = card["network"]["name"]
    lines += [
        f"Extracted by `{card['extractor']}` as `{network}`; samples are shaped "
        f"{tuple(card['shape'])}. {card['units'].capitalize()}.",
        "",
    ]
    if rows:
        lines += [markdown(["measure", "value [95 % interval]"], rows), ""]
    for figure in card["figures"]:
        lines += [f"![{figure}](figures/{figure})", ""]
    if card["limits"]:
        lines += ["## Limits", "", *(f"- {limit}" for limit in card["limits"]), ""]
    if card["provenance"]:
        lines += ["## Provenance", ""]
        lines += [f"- {name}: {_short(what)}" for name, what in card["provenance"].items()]
        lines.append("")
    return "\n".join(lines)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_short(v)}" for k, v in value.items())
    return f"`{value}`"
