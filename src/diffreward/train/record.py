"""What a run shows and leaves behind: metrics.jsonl, TensorBoard, a progress bar."""

import importlib
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from diffreward import files, text

PLAIN_INTERVAL = 10.0
"""Seconds between two progress lines where there is no terminal."""


def say(line: str) -> None:
    """Writes one line to stderr without tearing a progress bar; process 0 only."""
    if jax.process_index() == 0:
        tqdm.write(text.printable(line), file=sys.stderr)


class Recorder:
    """Writes the rows of one run from process 0; the other processes write nothing."""

    def __init__(
        self,
        workdir: Path,
        name: str,
        *,
        start: int,
        steps: int,
        progress: bool = True,
        wandb: dict[str, Any] | None = None,
    ):
        """Opens the record at step ``start``; what was written beyond it is forgotten.

        Args:
            workdir: folder of the run.
            name: stage name, shown in front of the progress.
            start: step the run continues from.
            steps: step it ends at.
            progress: show a bar, or a plain line every ten seconds without a terminal.
            wandb: keyword arguments of ``wandb.init``; None does not import it.
        """
        self._active = jax.process_index() == 0
        if not self._active:
            return
        self._name, self._steps = name, steps
        self._began = time.monotonic()
        self._shown = self._row = (start, self._began)
        self._bar = None
        self._plain = progress and not sys.stderr.isatty()
        if progress and not self._plain:
            self._bar = tqdm(
                total=steps, initial=start, desc=name, unit="step", dynamic_ncols=True
            )
        workdir.mkdir(parents=True, exist_ok=True)
        rows = workdir / "metrics.jsonl"
        truncate_rows(rows, start)
        self._rows = files.opened(rows)
        self._board = board(workdir / "tensorboard", start + 1)
        self._wandb = None
        if wandb is not None:
            self._wandb = importlib.import_module("wandb").init(
                **{"name": name, "dir": str(workdir), "resume": "allow", **wandb}
            )

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        if self._active:
            self._rows.close()
            self._board.close()
            if self._bar is not None:
                self._bar.close()
            if self._wandb is not None:
                self._wandb.finish()

    def advance(self, step: int, loss: np.ndarray) -> None:
        """Shows that training has reached ``step``."""
        if not self._active:
            return
        now = time.monotonic()
        before, then = self._shown
        loss_text = f"loss {float(np.mean(loss)):.4g}"
        if self._bar is not None:
            self._bar.set_postfix_str(loss_text, refresh=False)
            self._bar.update(step - before)
        elif self._plain and now - then > PLAIN_INTERVAL:
            rate = (step - before) / (now - then)
            say(
                f"{self._name}: step {step}/{self._steps}, {rate:.3g} steps/s, "
                f"{(self._steps - step) / rate:.0f} s left, {loss_text}"
            )
        else:
            return
        self._shown = (step, now)

    def write(self, step: int, values: dict[str, Any], prefix: str) -> None:
        """Appends one row; keys get ``prefix/``, arrays become lists.

        Numbers that are not finite become null, since JSON has no word for them.
        """
        if not self._active:
            return
        arrays = {f"{prefix}/{k}": np.asarray(v) for k, v in values.items()}
        now = time.monotonic()
        row = {"step": step, **{k: _finite(v.tolist()) for k, v in arrays.items()}}
        row["seconds"] = round(now - self._began, 3)
        if prefix == "train":
            before, then = self._row
            row["steps_per_second"] = round((step - before) / (now - then), 3)
            self._row = (step, now)
        self._rows.write(json.dumps(row) + "\n")
        # A later checkpoint must never be newer than the rows that lead up to it.
        self._rows.flush()
        scalars = {
            k if v.ndim == 0 else f"{k}/{i}": float(x)
            for k, v in arrays.items()
            for i, x in enumerate(v.reshape(-1))
        }
        for key, value in scalars.items():
            self._board.add_scalar(key, value, step)
        if self._wandb is not None:
            self._wandb.log(scalars, step=step)


def board(folder: Path, first: int) -> Any:
    """TensorBoard's events from step ``first`` on.

    Its library imports PyTorch where that is installed, which takes seconds and hundreds
    of megabytes; scalars need none of it.
    """
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]
    try:
        writer = importlib.import_module("tensorboardX").SummaryWriter
    finally:
        if hidden:
            del sys.modules["torch"]
    return writer(str(folder), purge_step=first)


def truncate_rows(path: Path, step: int) -> None:
    """Drops the rows of a metrics file beyond ``step``, and a torn last line."""
    if not path.exists():
        return
    kept = []
    with files.reading(path) as file:
        for number, line in enumerate(file.text().splitlines(keepends=True), 1):
            if not line.endswith("\n"):
                break
            if _step_of(line, f"{path}, line {number}") > step:
                break
            kept.append(line)
    files.write_text(path, "".join(kept))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics file.

    Raises:
        ValueError: naming the file and the line, if one is damaged.
    """
    with files.reading(path) as file:
        lines = file.text().splitlines()
        for number, line in enumerate(lines, 1):
            _step_of(line, f"{path}, line {number}")
        return [json.loads(line) for line in lines]


def _step_of(line: str, where: str) -> int:
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        step = None
    if not isinstance(step, int):
        raise ValueError(
            f"{where}: no row of metrics; the file is damaged: delete it, and the record "
            "begins where the run goes on"
        )
    return step


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
