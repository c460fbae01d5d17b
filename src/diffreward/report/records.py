"""Run records: what a stage was asked, what it read, and what it found.

Stages meet only through folders ``workdir/<stage>/``. A stage's ``config.json`` is
written before it starts and its ``report.json`` when it has finished, both atomically;
``inputs.json`` holds a digest of every stage it read. A finished stage is skipped when
both are unchanged and refused, with the difference named, when they are not.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffreward import files, processes


class StaleRunError(RuntimeError):
    """A folder holds results made with other settings or other inputs."""


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, whole or not at all."""
    files.write_text(path, json.dumps(value, indent=2, default=_plain) + "\n")


def read_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
        ValueError: naming the file, if it is missing or damaged.
    """
    try:
        return files.read_json(path)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; run the stage that writes it") from None
    except files.FileValueError as error:
        raise ValueError(f"{error}; delete it") from None


def digest(value: Any) -> str:
    """Short hash of a JSON-able value."""
    text = json.dumps(value, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def environment() -> dict[str, Any]:
    """Versions and devices, for the record."""
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "mujoco")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": [d.device_kind for d in jax.devices()],
        "cpus": os.cpu_count(),
        **{name: importlib.metadata.version(name) for name in names},
    }


def open_stage(
    folder: Path,
    config: dict[str, Any],
    inputs: dict[str, str] | None = None,
    *,
    together: bool = False,
) -> bool:
    """Prepares a stage's folder; True if the stage has finished before.

    Of several processes the first works; for the others a stage that it has to do has
    finished when they come back from here.

    Args:
        folder: folder of the stage.
        config: every setting the stage depends on.
        inputs: digests of the stages it reads (see :func:`stage_digest`).
        together: whether all processes work on it; :func:`close_stage` is then for all,
            once each has done its part.

    Raises:
        StaleRunError: if the folder was made with other settings or inputs.
    """
    if jax.process_count() == 1:
        return _open(folder, config, inputs)
    try:
        done, said = files.follows() or _open(folder, config, inputs), ""
    except (OSError, StaleRunError, ValueError) as error:
        done, said = False, f"{error}"
    done, said = processes.agree([done, said])
    if said:
        raise StaleRunError(said)
    if not together and (done or files.follows()):
        processes.wait(f"end of {folder.name}")
        return True
    return done


def _open(folder: Path, config: dict[str, Any], inputs: dict[str, str] | None) -> bool:
    """Of the process that writes."""
    config = json.loads(json.dumps(config, default=_plain))
    records = {"config.json": config, "inputs.json": inputs or {}}
    for name, asked in records.items():
        path = folder / name
        if path.exists() and (found := read_json(path)) != asked:
            raise StaleRunError(
                f"{folder} was made with other {name.removesuffix('.json')}: "
                f"{_difference(found, asked)}; use another --workdir, or delete "
                f"{folder} and the stages after it"
            )
    for name, asked in records.items():
        write_json(folder / name, asked)
    if not (folder / "environment.json").exists():
        write_json(folder / "environment.json", environment())
    return (folder / "report.json").exists()


def close_stage(folder: Path, report: dict[str, Any]) -> None:
    """Marks a stage finished; its report is what later stages and people read."""
    write_json(folder / "report.json", report)
    processes.wait(f"end of {folder.name}")


def stage_digest(folder: Path) -> str:
    """Digest of what a stage was asked and what it had read."""
    return digest([read_json(folder / n) for n in ("config.json", "inputs.json")])


def _difference(found: Any, asked: Any, prefix: str = "") -> str:
    """First differing entry of two JSON values, in words."""
    if isinstance(found, dict) and isinstance(asked, dict):
        for key in sorted(found.keys() | asked.keys()):
            if found.get(key, "absent") != asked.get(key, "absent"):
                return _difference(
                    found.get(key, "absent"),
                    asked.get(key, "absent"),
                    f"{prefix}.{key}" if prefix else key,
                )
    return f"{prefix} was {found!r}, now {asked!r}"


def _plain(value: Any) -> Any:
    """NumPy and JAX numbers and arrays as JSON has them."""
    if isinstance(value, np.ndarray | jax.Array):
        return np.asarray(value).tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "_asdict"):
        return value._asdict()
    raise TypeError(f"cannot write {type(value).__name__} as JSON")
