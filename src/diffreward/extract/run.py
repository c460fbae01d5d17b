"""What a training run was made from, so that its folder never serves another one."""

import hashlib
import importlib.metadata
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffreward import files
from diffreward.extract.source import Source
from diffreward.networks import describe
from diffreward.reward import Pair

START = "start"
"""Folder in that of a run, for a run that has to come before."""
RECORD = "run.json"
MODELS = "models"


class OtherRun(ValueError):
    """A folder holds steps of another run; ``difference`` names what differs."""

    def __init__(self, folder: Path, difference: str):
        """Names both."""
        super().__init__(f"{folder} holds another run: {difference}; use another workdir")
        self.difference = difference


def run_record(
    extractor: str,
    source: Source,
    settings: Any,
    seed: int,
    models: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything that decides the bits of a trained reward, as JSON has it.

    Args:
        extractor: its name.
        source: digests are taken of its arrays.
        settings: the extractor's record; all of it but the display of progress.
        seed: of everything.
        models: what the two models are, such as digests of their files; by default a
            digest of what they answer to a few samples.
    """
    arrays = {k: v for k, v in source._asdict().items() if k != "pair" and v is not None}
    if models is None and source.pair is not None:
        models = {"answers": _answers(source.pair, arrays)}
    record = {
        "extractor": extractor,
        MODELS: dict(models or {}),
        "data": {name: _digest(value) for name, value in arrays.items()},
        "settings": {k: v for k, v in settings._asdict().items() if k != "progress"},
        "seed": seed,
        "made with": {
            "diffreward": importlib.metadata.version("diffreward"),
            "jax": jax.__version__,
            "platform": jax.default_backend(),
        },
    }
    return json.loads(json.dumps(record, default=_plain))


def open_run(folder: Path, record: dict[str, Any]) -> None:
    """Prepares the folder of a run: new, or with earlier steps of the very same run.

    Steps of another run are never gone on from; a folder without any starts anew.

    Raises:
        OtherRun: if the folder holds steps of another run.
    """
    path = folder / RECORD
    found = _current(files.read_json(path)) if path.exists() else {}
    if found != record:
        if has_steps(folder):
            raise OtherRun(folder, difference(found, record))
        files.write_text(path, json.dumps(record, indent=2) + "\n")


def _current(found: Any) -> Any:
    """A record as it is made now; one made before held the settings of every extractor.

    None that trains has ever read those of the others, so their values decided nothing,
    and the noise levels given for a run are now among its data.
    """
    match found:
        case {
            "data": {**data},
            "settings": {
                "schedule": schedule,
                "weighting": _,
                "beta": _,
                "noises": _,
                "probes": _,
                **own,
            },
        }:
            levels = {} if schedule is None else {"schedule": schedule}
            return found | {"data": data | levels, "settings": own}
    return found


def has_steps(folder: Path) -> bool:
    """Whether a run has saved a checkpoint there, or of what it starts at."""
    saved = [f / "checkpoint" for f in (folder, folder / START)]
    return any(p.name.isdigit() for s in saved if s.is_dir() for p in s.iterdir())


def difference(found: Any, asked: Any, name: str = "") -> str:
    """The first entry in which two records differ, in words."""
    if isinstance(found, dict) and isinstance(asked, dict):
        for key in [*asked, *(k for k in found if k not in asked)]:
            if found.get(key) != asked.get(key):
                inner = f"{name} {key}".strip()
                return difference(found.get(key), asked.get(key), inner)
    return f"{name} was {_brief(found)}, now {_brief(asked)}".strip()


def _brief(value: Any) -> str:
    if value is None or value == {}:
        return "not given"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 24 else f"{text[:12]}..."


def _plain(value: Any) -> Any:
    """What JSON has no form for: arrays, networks, and what is the caller's own."""
    if isinstance(value, np.ndarray | jax.Array):
        return _digest(value)
    try:
        return describe(value)
    except ValueError:
        return re.sub(" at 0x[0-9a-f]+", "", str(value))


def _digest(tree: Any) -> str:
    """Digest of the types, shapes and bytes of a tree's arrays."""
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        array = np.ascontiguousarray(leaf)
        sha.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return sha.hexdigest()


def _answers(pair: Pair, arrays: Mapping[str, Any]) -> str:
    """Digest of what both models predict for a few samples at the outer levels."""
    samples = jax.tree.leaves([arrays.get(k) for k in ("base", "expert", "preferences")])
    if not samples:
        return ""
    x = np.asarray(samples[0][:4], np.float32)
    levels = np.asarray([0, pair.schedule.num_steps - 1], np.int32)
    ask = lambda x, t: (pair.base(x, t), pair.expert(x, t))
    every = jax.vmap(jax.vmap(ask, (None, 0)), (0, None))
    return _digest([pair.schedule, jax.jit(every)(x, levels)])
