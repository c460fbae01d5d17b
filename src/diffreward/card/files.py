"""Reward cards on disk: weights, what they mean, and a NumPy program that uses them.

A card is a folder::

    card.json             what it is, where it comes from, what was measured, its limits
    weights.safetensors   parameters, noise schedule, coordinates
    score.py              inference in NumPy alone: ``python score.py samples.npy``
    figures/              pictures
"""

import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file, save_file

from diffreward.card.numpy_export import NotExportable
from diffreward.card.program import program
from diffreward.card.reward import Reward, network_reward
from diffreward.data.normaliser import Normaliser
from diffreward.diffusion import Schedule
from diffreward.networks import build, describe

FORMAT = "diffreward-card-1"


def save(
    reward: Reward,
    folder: str | Path,
    shape: tuple[int, ...],
    *,
    provenance: Mapping[str, Any] | None = None,
    measures: Mapping[str, Any] | None = None,
    limits: Sequence[str] = (),
    figures: Mapping[str, str | Path] | None = None,
    replace: bool = False,
) -> None:
    """Writes a card, whole or not at all.

    Args:
        reward: with a network; training-free rewards have nothing to save.
        folder: of the card; must not exist, unless it is a card to ``replace``.
        shape: of one sample.
        provenance: where it comes from: digests of both models and of the data.
        measures: what was measured; numbers, or (value, low, high) with an interval.
        limits: what the reward must not be used for, one sentence each.
        figures: file name -> picture to copy.
        replace: overwrite an existing card.

    Raises:
        ValueError: for a reward without a network, or a folder in the way.
    """
    folder = Path(folder)
    if reward.network is None:
        raise ValueError(
            f"a {reward.extractor} reward has no weights of its own to save; fit one that "
            "is trained, such as gradient_alignment"
        )
    if folder.exists() and not (replace and (folder / "card.json").exists()):
        raise ValueError(f"{folder} exists; choose another folder or replace a card")
    tensors = _tensors(reward)
    limits = list(limits)
    source = None
    try:
        source, constants = program(reward, shape)
        tensors |= constants
    except NotExportable as error:
        limits.append(f"No NumPy program: {error}.")

    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "figures").mkdir(parents=True)
    # Sorted, so that equal rewards are equal files.
    save_file(dict(sorted(tensors.items())), partial / "weights.safetensors")
    if source is not None:
        (partial / "score.py").write_text(source)
    for name, path in (figures or {}).items():
        shutil.copy(path, partial / "figures" / name)
    card = {
        "format": FORMAT,
        "diffreward": importlib.metadata.version("diffreward"),
        "extractor": reward.extractor,
        "network": describe(reward.network),
        "shape": list(shape),
        "units": "nats: log density of the expert over the base, up to a constant",
        "coordinates": "data units, normalised inside" if reward.normaliser else "as given",
        "weights_sha256": sha256(partial / "weights.safetensors"),
        "provenance": dict(provenance or {}),
        "cost": dict(reward.cost),
        "measures": dict(measures or {}),
        "limits": limits,
        "figures": sorted(figures or {}),
    }
    (partial / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    if folder.exists():
        old = folder.with_name(folder.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
        os.replace(partial, folder)
        shutil.rmtree(old)
    else:
        os.replace(partial, folder)


def load(folder: str | Path) -> Reward:
    """Reads the reward of a card.

    Raises:
        ValueError: if the folder is no card, or damaged; the message says what is.
    """
    folder = Path(folder)
    card = read_card(folder)
    path = folder / "weights.safetensors"
    if not path.exists():
        raise ValueError(f"{path} is missing; the card is incomplete, copy it again")
    if sha256(path) != card["weights_sha256"]:
        raise ValueError(f"{path} is not the file the card was made with; copy it again")
    tensors = load_file(path)
    try:
        network = build(card["network"])
        schedule = Schedule(*(jnp.asarray(tensors[f"schedule/{k}"]) for k in FIELDS))
        normaliser = None
        if "normaliser/scale" in tensors:
            shift, scale = tensors["normaliser/shift"], tensors["normaliser/scale"]
            normaliser = Normaliser(shift, scale)
        params = _params(network, tensors, tuple(card["shape"]))
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{folder} cannot be rebuilt: {error}") from error
    return network_reward(
        network,
        params,
        schedule,
        card["extractor"],
        normaliser=normaliser,
        cost=card["cost"],
    )


def read_card(folder: str | Path) -> dict[str, Any]:
    """What a card says of itself.

    Raises:
        ValueError: if the folder holds no card of this format.
    """
    path = Path(folder) / "card.json"
    if not path.exists():
        raise ValueError(f"{folder} is no reward card: it has no card.json")
    try:
        card = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}); copy the card again") from None
    found = card.get("format") if isinstance(card, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path} has format {found!r}; this version reads {FORMAT!r}")
    needed = ("network", "shape", "weights_sha256", "extractor", "cost")
    if missing := [k for k in needed if k not in card]:
        raise ValueError(f"{path} is incomplete: no {', '.join(missing)}")
    return card


def sha256(path: Path) -> str:
    """Digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


FIELDS = Schedule._fields


def _tensors(reward: Reward) -> dict[str, np.ndarray]:
    tensors = {f"params/{k}": v for k, v in flat_params(reward.params).items()}
    for name, values in zip(FIELDS, reward.schedule, strict=True):
        tensors[f"schedule/{name}"] = np.asarray(values)
    if reward.normaliser is not None:
        for name, values in reward.normaliser._asdict().items():
            tensors[f"normaliser/{name}"] = np.asarray(values, np.float32)
    return {k: np.ascontiguousarray(v) for k, v in tensors.items()}


def flat_params(params: Any) -> dict[str, np.ndarray]:
    """Parameters by path, such as ``params/head/kernel``."""
    return {k: np.asarray(v) for k, v in flatten_dict(params, sep="/").items()}


def _params(network: Any, tensors: dict[str, np.ndarray], shape: tuple[int, ...]) -> Any:
    """The parameters among the tensors, checked against what the network has."""
    x, t = jnp.zeros(shape), jnp.zeros((), jnp.int32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x, t)
    wanted: dict[str, Any] = flatten_dict(shapes, sep="/")
    found = {
        k.removeprefix("params/"): v for k, v in tensors.items() if k.startswith("params/")
    }
    if found.keys() != wanted.keys():
        odd = sorted(found.keys() ^ wanted.keys())[0]
        where = "the network lacks" if odd in found else "the weights lack"
        raise ValueError(f"{where} {odd}")
    for name, spec in wanted.items():
        if found[name].shape != spec.shape:
            raise ValueError(
                f"{name} has shape {found[name].shape}, the network needs {spec.shape}"
            )
    return unflatten_dict({k: jnp.asarray(v) for k, v in found.items()}, sep="/")
