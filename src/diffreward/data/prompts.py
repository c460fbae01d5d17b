"""Prompts with their metadata, from CSV, JSON or JSON lines."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffreward.files import SMALL, File, FileValueError, reading

# The longest cell is the file itself, whose size the door limits.
csv.field_size_limit(SMALL)

TEXT = "prompt"
FLAGS = {"yes", "no"}
"""Cells of a column that says whether something holds of a prompt."""


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
    if path.suffix.lower() not in _READERS:
        raise FileValueError(f"prompts: {path} is not a .csv, .json or .jsonl file")
    with reading(path, most=SMALL) as file:
        rows = _READERS[path.suffix.lower()](file)
    if limit:
        rows = rows[:limit]
    if not rows:
        raise FileValueError(f"prompts: {path} holds none")
    for i, row in enumerate(rows):
        text = row.get(column)
        if not isinstance(text, str) or not text.strip() or not _is_text(text):
            names = ", ".join(map(repr, row)) or "nothing"
            raise FileValueError(
                f"prompts: entry {i + 1} of {path} has no {column!r}; it has {names}"
            )
    names = [n for n in dict.fromkeys(n for row in rows for n in row) if n != column]
    columns = {n: [_cell(row.get(n)) for row in rows] for n in names}
    return Prompts([row[column] for row in rows], columns)


def read_flags(prompts: Prompts, column: str) -> np.ndarray:
    """Whether a column of yes and no says so, (prompts,).

    Raises:
        ValueError: if there is no such column, or a cell of it says anything else.
    """
    if column not in prompts.columns:
        names = ", ".join(map(repr, prompts.columns)) or "none"
        raise ValueError(f"the prompts have no column {column!r}; their columns: {names}")
    cells = prompts.columns[column]
    for i, cell in enumerate(cells):
        if cell not in FLAGS:
            raise ValueError(
                f"prompts: entry {i + 1}, column {column!r}: {cell!r} is neither yes nor no"
            )
    return np.array([cell == "yes" for cell in cells])


def _is_text(text: str) -> bool:
    """Whether it can be encoded: JSON may write halves of characters."""
    return not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text)


def _cell(value: Any) -> str:
    """A value as in a table; several of them are separated by commas."""
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    return "" if value is None else str(value)


def _csv(file: File) -> list[dict[str, Any]]:
    """Rows of a table; only line feeds and carriage returns end its lines."""
    reader = csv.reader(io.StringIO(file.text(), newline=""), strict=True)
    rows: list[dict[str, Any]] = []
    header: list[str] = []
    try:
        for cells in reader:
            where = f"prompts: {file.path}, line {reader.line_num}"
            if not cells:  # an empty line
                continue
            if not header:
                header = cells
                if len(set(header)) != len(header):
                    raise FileValueError(f"{where}: two columns have one name")
            elif len(cells) != len(header):
                raise FileValueError(
                    f"{where}: {len(cells)} cells for {len(header)} columns; put cells "
                    "with commas in quotes"
                )
            else:
                rows.append(dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise FileValueError(
            f"prompts: {file.path}, line {reader.line_num}: {error}; is a quote left open?"
        ) from error
    return rows


def _json(file: File) -> list[dict[str, Any]]:
    try:
        return _objects(file, json.loads(file.text(), object_pairs_hook=_unique))
    except (ValueError, RecursionError) as error:
        if isinstance(error, FileValueError):
            raise
        raise FileValueError(f"prompts: {file.path} is not valid JSON ({error})") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, none of whose names stands twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has one name twice")
    return found


def _json_lines(file: File) -> list[dict[str, Any]]:
    found = []
    # Only line feeds end lines: JSON texts may hold every other separator.
    for number, line in enumerate(file.text().split("\n"), 1):
        if line.strip():
            try:
                found.append(json.loads(line, object_pairs_hook=_unique))
            except (ValueError, RecursionError) as error:
                raise FileValueError(
                    f"prompts: {file.path}, line {number} is not valid JSON ({error})"
                ) from None
    return _objects(file, found)


def _objects(file: File, found: Any) -> list[dict[str, Any]]:
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise FileValueError(
            f"prompts: {file.path} must hold a list, not {type(found).__name__}"
        )
    rows = [{TEXT: row} if isinstance(row, str) else row for row in found]
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise FileValueError(
                f"prompts: entry {i + 1} of {file.path} is neither a text nor an object"
            )
    return [dict(row) for row in rows]


_READERS: dict[str, Callable[[File], list[dict[str, Any]]]] = {
    ".csv": _csv,
    ".json": _json,
    ".jsonl": _json_lines,
}


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
