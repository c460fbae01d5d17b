"""The leaderboard's numbers, intervals and page, from what its stages have kept."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from diffreward import report
from diffreward.data import read_arrays
from diffreward.extract import truth
from diffreward.measures import nested_bootstrap

COSTS = ("seconds", "evaluations", "evaluations_per_value")
JUDGED = "gradient_alignment"
"""The method that the others are compared with."""

CONTEXT = "context"
"""Among the scores of a conditional pair: the number of every test sample's context."""
LAWS = ("gradient_error", "value_error", "rank_correlation")
RESAMPLES = 500
LAW_RESAMPLES = 200
"""Fewer: every draw ranks 40 levels, for up to three seeds and 84 cells."""

Rows = dict[str, list[Path]]
"""Folders of the seeds of every row."""
Found = dict[str, Rows]
"""Those of every pair."""


def law_row(folders: list[Path]) -> dict[str, Any]:
    """Errors of one row on a closed form; intervals resample seeds and test samples.

    Of a conditional law, they resample contexts, each with all of its samples.
    """
    scores = [_scores(folder) for folder in folders]
    context = [s.pop(CONTEXT, None) for s in scores]
    found = [truth.Comparison(**s) for s in scores]

    def numbers(i: int, rows: np.ndarray) -> list[float]:
        picked = truth.Comparison(*(a[rows] for a in found[i]))
        shared = context[i]
        under = None if shared is None else shared[rows]
        every = truth.accuracy(picked, context=under)
        return [getattr(every, name) for name in LAWS]

    units = [
        list(np.arange(len(f.value))[:, None])
        if c is None
        else [np.flatnonzero(c == k) for k in np.unique(c)]
        for f, c in zip(found, context, strict=True)
    ]
    value, draws = nested_bootstrap(numbers, units, resamples=LAW_RESAMPLES)
    levels = [
        [truth.accuracy(f, slice(t, t + 1)).gradient_error for f in found]
        for t in range(found[0].value.shape[1])
    ]
    return {
        **{n: _interval(v, d) for n, v, d in zip(LAWS, value, draws.T, strict=True)},
        "gradient_error_by_level": np.mean(levels, 1).tolist(),
        "seeds": len(found),
    }


def clean_rows(rows: Rows) -> dict[str, Any]:
    """Rank correlations with the known reward, and how far above gradient alignment's.

    Intervals resample seeds and episodes, the same for every row.
    """
    names = list(rows)
    found = [[_scores(f) for f in folders] for folders in zip(*rows.values(), strict=True)]
    values = [np.stack([s["value"] for s in seed]) for seed in found]

    def correlations(i: int, picks: np.ndarray) -> np.ndarray:
        ranks = lambda x: rankdata(x, axis=-1) - (len(picks) + 1) / 2
        x, y = ranks(values[i][:, picks]), ranks(found[i][0]["truth"][picks])
        # A constant ranks nothing: 0.
        return x @ y / np.maximum(np.linalg.norm(x, axis=1) * np.linalg.norm(y), 1e-12)

    episodes = [seed[0]["episode"] for seed in found]
    units = [[np.flatnonzero(e == k) for k in np.unique(e)] for e in episodes]
    value, draws = nested_bootstrap(correlations, units, resamples=RESAMPLES)
    table: dict[str, Any] = {
        name: {"rank_correlation": _interval(value[i], draws[:, i])}
        for i, name in enumerate(names)
    }
    if JUDGED in names:
        j = names.index(JUDGED)
        for i, name in enumerate(names):
            gain = _interval(value[i] - value[j], draws[:, i] - draws[:, j])
            table[name]["above_gradient_alignment"] = gain
    return {
        "rows": table,
        "windows": [len(e) for e in episodes],
        "episodes": [len(u) for u in units],
    }


def costs(found: Found, own: Collection[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean costs of every row over seeds: of closed forms together, of ``own`` each."""
    table: dict[str, dict[str, list[Any]]] = {}
    for pair, rows in found.items():
        group = table.setdefault(pair if pair in own else "closed forms", {})
        for row, folders in rows.items():
            group.setdefault(row, []).extend(
                report.read_json(f / "report.json") for f in folders
            )
    mean = lambda records: {k: float(np.mean([r[k] for r in records])) for k in COSTS}
    return {g: {row: mean(r) for row, r in rows.items()} for g, rows in table.items()}


def write(folder: Path, result: dict[str, Any], titles: dict[str, str]) -> None:
    """Writes the tables, and what they say of gradient alignment.

    Args:
        folder: of the page.
        result: the report.
        titles: of the pairs with a table of their own.
    """
    t, laws = result["training"], result["laws"]
    parts = [
        "# Extractors on pairs with a known reward\n",
        f"Trained extractors: {t['steps']} steps of batch {t['batch_size']}, width "
        f"{t['width']}, which is not equal compute: the last tables have the network "
        "evaluations that each one took (forward passes of one sample; derivatives are "
        "not counted). The others train nothing. 95 % intervals resample seeds, and the "
        f"test samples or episodes of each ({result['seeds']} seeds of what is learned).\n",
    ]
    kinds: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
        ("Gradient error, %", "gradient_error", _percent),
        ("Error of the log ratio, %", "value_error", _percent),
        ("Rank correlation", "rank_correlation", _three),
    )
    for title, key, text in kinds if laws else ():
        names = list(next(iter(laws.values())))
        lines = [(n, *(text(rows[n][key]) for rows in laws.values())) for n in names]
        parts += [f"## {title}\n", report.markdown(("extractor", *laws), lines), ""]
    for pair, title in titles.items():
        if result[pair]:
            parts += _clean(result[pair], title)
    for group, rows in result["costs"].items():
        lines = [(n, *(f"{r[k]:,.0f}" for k in COSTS)) for n, r in rows.items()]
        header = ("row", "seconds to fit", "evaluations to fit", "evaluations per value")
        parts += [f"## Cost, {group}\n", report.markdown(header, lines), ""]
    report.write_report(folder, "\n".join(parts))


def _clean(found: dict[str, Any], title: str) -> list[str]:
    """A pair's own table, best row first, and what gradient alignment lost to."""
    order = sorted(
        found["rows"].items(), key=lambda row: row[1]["rank_correlation"][0], reverse=True
    )
    windows, episodes = (" / ".join(map(str, found[k])) for k in ("windows", "episodes"))
    header = ("row", "rank correlation", f"above {JUDGED}")
    lines = [
        (n, _three(r["rank_correlation"]), _signed(r.get("above_gradient_alignment")))
        for n, r in order
    ]
    lines.append(("a constant", "0.000", ""))
    return [
        f"## {title}\n",
        f"Held-out windows of whole episodes, by seed: {windows} of {episodes} episodes.\n",
        report.markdown(header, lines),
        "",
        verdict(found["rows"]),
    ]


def verdict(rows: dict[str, Any]) -> str:
    """Names every row that ranks better than gradient alignment, and how surely."""
    if JUDGED not in rows:
        return ""
    gain = {n: r["above_gradient_alignment"] for n, r in rows.items() if n != JUDGED}
    better = sorted((n for n in gain if gain[n][0] > 0), key=lambda n: -gain[n][0])
    surely = [n for n in better if gain[n][1] > 0]
    worse = [n for n in gain if gain[n][2] < 0]
    text = f"Gradient alignment is number {len(better) + 1} of {len(rows)}. "
    if better:
        text += f"Better: {', '.join(better)}; "
        text += f"the interval of the difference excludes zero for {len(surely)} of them"
        unsure = [n for n in better if n not in surely]
        text += f" (not for {', '.join(unsure)}). " if unsure else ". "
    text += f"Surely worse: {', '.join(worse) if worse else 'none'}.\n"
    return text


def _scores(folder: Path) -> dict[str, np.ndarray]:
    return read_arrays(folder / "scores.npz")


def _interval(value: Any, draws: np.ndarray) -> list[float]:
    low, high = np.percentile(draws, [2.5, 97.5])
    return [float(value), float(low), float(high)]


def _percent(x: list[float]) -> str:
    return report.interval([100 * v for v in x])


def _three(x: list[float]) -> str:
    return report.interval(x, ".3f")


def _signed(x: list[float] | None) -> str:
    return "" if x is None or not any(x) else report.interval(x, "+.3f")
