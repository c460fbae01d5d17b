"""Prompts with their metadata, from CSV, JSON or JSON lines."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

TEXT = "prompt"


class Prompts(NamedTuple):
    """Texts, and columns of what else is known of each."""

    text: list[str]
    columns: dict[str, list[str]]


def read_prompts(path: str | Path, *, column: str = TEXT, limit: int = 0) -> Prompts:
    """Reads prompts in the order of the file.

    Args:
        path: ``.csv`` with a header, ``.json`` (a list of texts or of objects), or
            ``.jsonl`` (one object per line). I2P's CSV is of this kind.
        column: name of the column that holds the prompts.
        limit: keep this many from the beginning; 0 for all.

    Raises:
        ValueError: with the file and line, for anything else.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"prompts: cannot read {path} ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"prompts: {path} is not UTF-8 text ({error})") from error
    rows = _rows(path, text)
    if limit:
        rows = rows[:limit]
    if not rows:
        raise ValueError(f"prompts: {path} holds none")
    for i, row in enumerate(rows):
        if not str(row.get(column) or "").strip():
            names = ", ".join(map(repr, row)) or "nothing"
            raise ValueError(
                f"prompts: entry {i + 1} of {path} has no {column!r}; it has {names}"
            )
    names = [n for n in rows[0] if n is not None and n != column]
    columns = {n: [str(row.get(n, "")) for row in rows] for n in names}
    return Prompts([str(row[column]) for row in rows], columns)


def _rows(path: Path, text: str) -> list[dict[str, Any]]:
    kind = path.suffix.lower()
    if kind == ".csv":
        return list(csv.DictReader(text.splitlines(keepends=True)))
    try:
        if kind == ".json":
            found: Any = json.loads(text)
        elif kind == ".jsonl":
            found = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            raise ValueError(f"prompts: {path} is not a .csv, .json or .jsonl file")
    except json.JSONDecodeError as error:
        raise ValueError(f"prompts: {path} is not valid JSON ({error})") from error
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise ValueError(f"prompts: {path} must hold a list, not {type(found).__name__}")
    rows = [{TEXT: row} if isinstance(row, str) else row for row in found]
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ValueError(
                f"prompts: entry {i + 1} of {path} is neither a text nor an object"
            )
    return [dict(row) for row in rows]


def slices(
    columns: Mapping[str, Sequence[str]], *, most: int = 12
) -> dict[str, dict[str, np.ndarray]]:
    """Indices of every value of every column that has 2 to ``most`` values.

    A column in which all rows differ names them and slices nothing. A cell with several
    values ("hate, violence") counts for each of them.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, cells in columns.items():
        members: dict[str, list[int]] = {}
        for i, cell in enumerate(cells):
            for value in {v.strip() for v in cell.split(",")} - {""}:
                members.setdefault(value, []).append(i)
        if 2 <= len(members) <= most and len(members) < len(cells):
            found[name] = {v: np.array(members[v]) for v in sorted(members)}
    return found
