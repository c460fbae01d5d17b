"""Reward cards on disk: weights, what they mean, and a NumPy program that uses them.

A card is a folder::

    card.json             what it is, where it comes from, what was measured, its limits
    weights.safetensors   parameters, noise schedule, coordinates
    score.py              inference in NumPy alone: ``python score.py samples.npy``
    figures/              pictures

``card.json`` holds the digest of every other file, and ``score.py`` that of the weights.
"""

import hashlib
import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from diffreward import files
from diffreward.card.context import conditioned, described, layout_of, limits_of
from diffreward.card.numpy_export import NotExportable
from diffreward.card.program import program, seal
from diffreward.card.schema import (
    AS_GIVEN,
    NORMALISED,
    check_card,
    check_tensors,
    is_number,
)
from diffreward.data.normaliser import Normaliser
from diffreward.diffusion import Schedule
from diffreward.networks import build, describe
from diffreward.reward import UNITS, Reward, network_reward

FORMAT = "diffreward-card-3"
WEIGHTS, PROGRAM = "weights.safetensors", "score.py"


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
        shape: of one sample, of a conditional reward that of the vector with its context.
        provenance: where it comes from: digests of both models and of the data.
        measures: what was measured; numbers, or (value, low, high) with an interval.
        limits: what the reward must not be used for, one sentence each.
        figures: file name -> picture to copy.
        replace: overwrite an existing card that holds nothing but what it lists.

    Raises:
        ValueError: for a reward without a network or with numbers that are not finite,
            entries that no card may have, or a folder in the way.
        OSError: if it cannot be written.
    """
    folder = Path(folder)
    if reward.network is None:
        raise ValueError(
            f"a {reward.extractor} reward has no weights of its own to save; fit one that "
            "is trained, such as gradient_alignment"
        )
    if reward.units not in UNITS:
        raise ValueError(f"units must be one of {', '.join(UNITS)}, got {reward.units!r}")
    check_place(folder, replace=replace)
    tensors = _tensors(reward)
    limits = [*limits, *limits_of(reward)]
    source = None
    try:
        source, constants = program(reward, shape)
        tensors |= constants
    except NotExportable as error:
        limits.append(f"No NumPy program: {error}.")
    coordinates = AS_GIVEN if reward.normaliser is None else NORMALISED
    check_tensors(tensors, tuple(shape), coordinates, conditioned(reward))

    # Sorted, so that equal rewards are equal files.
    contents = {WEIGHTS: safetensors.numpy.save(dict(sorted(tensors.items())))}
    weights = _digest(contents[WEIGHTS])
    if source is not None:
        contents[PROGRAM] = seal(source, weights).encode()
    pictures = {}
    for name, path in sorted((figures or {}).items()):
        with files.reading(path) as file:
            contents[f"figures/{name}"], pictures[name] = file.data, file.sha256
    card = {
        "format": FORMAT,
        "diffreward": importlib.metadata.version("diffreward"),
        "jax": jax.__version__,
        "extractor": reward.extractor,
        "network": describe(reward.network),
        "shape": list(shape),
        "units": reward.units,
        "coordinates": coordinates,
        "conditioned": conditioned(reward),
        "context": described(reward.context),
        "weights_sha256": weights,
        "score_sha256": None if source is None else _digest(contents[PROGRAM]),
        "provenance": dict(provenance or {}),
        # Seconds are of a machine and of one call: the same run makes the same bytes.
        "cost": {k: v for k, v in reward.cost.items() if k != "seconds"},
        "measures": {k: _known(v) for k, v in (measures or {}).items()},
        "limits": limits,
        "figures": pictures,
    }
    card = json.loads(json.dumps(card, allow_nan=False))
    check_card(card, folder / "card.json", FORMAT)
    contents["card.json"] = f"{json.dumps(card, indent=2)}\n".encode()
    with files.writing(folder, replace=replace) as made:
        for name, data in contents.items():
            files.write_bytes(made / name, data)


def check_place(folder: Path, *, replace: bool) -> None:
    """Refuses a folder in which something else than a card to replace would be lost.

    Raises:
        ValueError: naming it.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if not replace:
        raise ValueError(f"{folder} exists; choose another folder or replace a card")
    if folder.is_symlink() or not (folder / "card.json").is_file():
        raise ValueError(f"{folder} exists and is no card; choose another folder")
    listed = {folder / "card.json", folder / "figures"}
    listed |= {folder / name for name in _digests(read_card(folder))}
    if foreign := sorted(set(folder.rglob("*")) - listed):
        raise ValueError(
            f"{foreign[0]} is no part of the card that would be replaced; move it away, or "
            "choose another folder"
        )


def load(folder: str | Path) -> Reward:
    """Reads the reward of a card.

    Raises:
        ValueError: if the folder is no card, or damaged; the message says what is.
    """
    return open_card(folder)[0]


@files.contained
def open_card(folder: str | Path) -> tuple[Reward, dict[str, Any]]:
    """The reward of a card, and what the card says of itself; each file is read once.

    Raises:
        ValueError: as :func:`load`.
    """
    folder = Path(folder)
    card = read_card(folder)
    path = folder / WEIGHTS
    if not path.exists():
        raise ValueError(f"{path} is missing; the card is incomplete, copy it again")
    shape = tuple(card["shape"])
    with files.reading(path) as file:
        if file.sha256 != card["weights_sha256"]:
            raise ValueError(
                f"{path} is not the file the card was made with; copy it again"
            )
        tensors = safetensors.numpy.load(file.data)
        file.spend(len(file.data) + 4 * math.prod(shape), "a sample of the card's shape")
        try:
            check_tensors(tensors, shape, card["coordinates"], card["conditioned"])
            reward = _rebuilt(card, tensors, shape)
        except (KeyError, ValueError, TypeError) as error:
            raise files.FileValueError(f"{folder} cannot be rebuilt: {error}") from error
    return reward, card


def _rebuilt(
    card: dict[str, Any], tensors: dict[str, np.ndarray], shape: tuple[int, ...]
) -> Reward:
    params = {
        k.removeprefix("params/"): v for k, v in tensors.items() if k.startswith("params/")
    }
    # A layer has an array, so no setting of a network exceeds what is there.
    size = sum(v.size for v in params.values())
    network = build(card["network"], layers=len(params), size=size)
    schedule = Schedule(*(jnp.asarray(tensors[f"schedule/{k}"]) for k in FIELDS))
    _check_scales(card["network"], schedule.num_steps)
    normaliser = None
    if card["coordinates"] == NORMALISED:
        normaliser = Normaliser(tensors["normaliser/shift"], tensors["normaliser/scale"])
    return network_reward(
        network,
        _params(network, params, shape),
        schedule,
        card["extractor"],
        card["units"],
        normaliser=normaliser,
        cost=card["cost"],
        shape=shape,
        pinned=jnp.asarray(tensors["pinned"]) if card["conditioned"] else None,
        context=layout_of(card["context"], shape),
    )


@files.contained
def read_card(folder: str | Path) -> dict[str, Any]:
    """What a card says of itself.

    Raises:
        ValueError: if the folder holds no card of this format.
    """
    path = Path(folder) / "card.json"
    if not path.exists():
        raise ValueError(f"{folder} is no reward card: it has no card.json")
    with files.reading(path, most=files.SMALL) as file:
        try:
            card = file.json()
        except files.FileValueError as error:
            raise files.FileValueError(
                f"{path} is damaged ({error}); copy the card again"
            ) from None
        return check_card(card, path, FORMAT)


@files.contained
def verify(folder: str | Path, card: Mapping[str, Any], reward: Reward) -> bool:
    """Holds every file of a card against it.

    Args:
        folder: of the card.
        card: from :func:`open_card`.
        reward: the same.

    Returns:
        Whether the program is the one that this version makes of the reward. Without a
        program True.

    Raises:
        ValueError: if a file is not the one the card was made with, or the program is
            another than the very version that wrote the card makes.
    """
    folder = Path(folder)
    for name, digest in _digests(card).items():
        # The weights' digest was compared when the reward was read from them.
        if name != WEIGHTS:
            with files.reading(files.inside(folder, name)) as file:
                if file.sha256 != digest:
                    raise files.FileValueError(
                        f"{file.path} is not the file the card was made with; copy it again"
                    )
    if card["score_sha256"] is None:
        if (folder / PROGRAM).exists():
            raise ValueError(f"{folder / PROGRAM} is no part of the card; do not run it")
        return True
    try:
        source = program(reward, tuple(card["shape"]))[0]
    except NotExportable:
        source = None
    same = source is not None and card["score_sha256"] == _digest(
        seal(source, card["weights_sha256"]).encode()
    )
    ours = (importlib.metadata.version("diffreward"), jax.__version__)
    if not same and (card["diffreward"], card["jax"]) == ours:
        raise ValueError(
            f"{folder / PROGRAM} is not the program that this reward makes; do not run it"
        )
    return same


def _digests(card: Mapping[str, Any]) -> dict[str, str]:
    """Digests of a card's files by name, ``card.json`` left out."""
    digests = {WEIGHTS: card["weights_sha256"]}
    if card["score_sha256"] is not None:
        digests[PROGRAM] = card["score_sha256"]
    return digests | {f"figures/{name}": sha for name, sha in card["figures"].items()}


FIELDS = Schedule._fields


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _known(value: Any) -> Any:
    """A measure as JSON has it; numbers that are not finite are not known."""
    if isinstance(value, list | tuple | np.ndarray):
        return [_known(v) for v in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not is_number(value) else value


def _tensors(reward: Reward) -> dict[str, np.ndarray]:
    tensors = {f"params/{k}": v for k, v in flat_params(reward.params).items()}
    for name, values in zip(FIELDS, reward.schedule, strict=True):
        tensors[f"schedule/{name}"] = np.asarray(values)
    if reward.normaliser is not None:
        for name, values in reward.normaliser._asdict().items():
            tensors[f"normaliser/{name}"] = np.asarray(values, np.float32)
    if reward.pinned is not None and np.any(reward.pinned):
        tensors["pinned"] = np.asarray(reward.pinned)
    return {k: np.ascontiguousarray(v) for k, v in tensors.items()}


def flat_params(params: Any) -> dict[str, np.ndarray]:
    """Parameters by path, such as ``params/head/kernel``."""
    return {k: np.asarray(v) for k, v in flatten_dict(params, sep="/").items()}


def _check_scales(network: Any, levels: int) -> None:
    """Levels beyond the scales of a network would silently be worth nothing."""
    while isinstance(network, dict):
        if network.get("name") == "LevelScaled" and len(network["scales"]) != levels:
            raise ValueError(
                f"the network has scales for {len(network['scales'])} noise levels, the "
                f"weights have {levels}"
            )
        network = network.get("net")


def _params(network: Any, found: dict[str, np.ndarray], shape: tuple[int, ...]) -> Any:
    """The parameters, checked against what the network has."""
    x, t = jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct((), jnp.int32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x, t)
    wanted: dict[str, Any] = flatten_dict(shapes, sep="/")
    if found.keys() != wanted.keys():
        odd = sorted(found.keys() ^ wanted.keys())[0]
        where = "the network lacks" if odd in found else "the weights lack"
        raise ValueError(f"{where} {odd}")
    for name, spec in wanted.items():
        if (found[name].shape, found[name].dtype) != (spec.shape, spec.dtype):
            raise ValueError(
                f"{name} is {found[name].dtype} of shape {found[name].shape}, the network "
                f"needs {spec.dtype} of shape {spec.shape}"
            )
    return unflatten_dict({k: jnp.asarray(v) for k, v in found.items()}, sep="/")
