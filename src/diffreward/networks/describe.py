"""Networks as plain data: a name and its settings, from which they are built again."""

import dataclasses
import functools
import math
import types
import typing
from typing import Any

import flax.linen as nn

from diffreward.names import choose
from diffreward.networks.energy import EnergyDenoiser, ResidualEnergy
from diffreward.networks.heads import (
    AsTrajectory,
    EnergyDifference,
    Flattened,
    LevelScaled,
)
from diffreward.networks.image_value import UnetReward, ValueUnet
from diffreward.networks.mlp import (
    DifferenceOfSquares,
    InnerProductReward,
    ScalarReward,
    TrajectoryMLP,
    WindowReward,
)
from diffreward.networks.temporal import TemporalUnet
from diffreward.networks.value import SingleStepRewardMLP, ValueFunction

KNOWN: dict[str, Any] = {
    cls.__name__: cls
    for cls in (
        AsTrajectory,
        DifferenceOfSquares,
        EnergyDenoiser,
        EnergyDifference,
        Flattened,
        InnerProductReward,
        LevelScaled,
        ResidualEnergy,
        ScalarReward,
        SingleStepRewardMLP,
        TemporalUnet,
        TrajectoryMLP,
        UnetReward,
        ValueFunction,
        ValueUnet,
        WindowReward,
    )
}
ABSENT = ("depth", "time_width")
"""Sizes that may be 0: no such layer; a window or a width of 0 is none."""


def describe(network: Any) -> dict[str, Any]:
    """Name and settings of a network, as JSON has them.

    Raises:
        ValueError: for a class that :func:`build` does not know.
    """
    name = type(network).__name__
    if KNOWN.get(name) is not type(network):
        raise ValueError(
            f"network {name} cannot be described; add it to KNOWN in networks/describe.py"
        )
    return {"name": name, **{k: _plain(v) for k, v in _fields(network).items()}}


def build(
    description: dict[str, Any], *, layers: int | None = None, size: int | None = None
) -> Any:
    """The network of a description.

    Args:
        description: from :func:`describe`, or anybody's.
        layers: arrays that there are; a network of more blocks is refused before it is
            built. No limit by default.
        size: numbers in these arrays; no width may exceed it.

    Raises:
        ValueError: for a name or a setting that does not exist, or has another type.
    """
    settings = dict(description)
    name = choose("network", settings.pop("name", None), KNOWN)
    kinds = _kinds(KNOWN[name])
    blocks = 1
    for key, value in settings.items():
        choose(f"setting of network {name}", key, kinds)
        if kinds[key] is nn.Module:
            if not isinstance(value, dict):
                raise ValueError(f"network {name}: {key} must be a network, got {value!r}")
            settings[key] = build(value, layers=layers, size=size)
            if not isinstance(settings[key], nn.Module):
                raise ValueError(f"network {name}: {key} cannot be {value['name']}")
            continue
        settings[key] = value = tuple(value) if isinstance(value, list) else value
        if not _is(value, kinds[key], least=0 if key in ABSENT else 1):
            raise ValueError(f"network {name}: {key} cannot be {value!r}"[:200])
        if key == "scales":
            continue
        numbers = value if isinstance(value, tuple) else (value,)
        if size is not None and any(type(n) is int and n > size for n in numbers):
            raise ValueError(f"network {name}: {key} is more than the weights have")
        if isinstance(value, tuple):
            blocks *= len(value)
        elif key in ("depth", "blocks"):
            blocks *= value
    if layers is not None and blocks > layers:
        raise ValueError(f"network {name}: {blocks} blocks, but the weights have {layers}")
    try:
        return KNOWN[name](**settings)
    except TypeError as error:
        raise ValueError(f"network {name}: {error}") from error


@functools.cache
def _kinds(network: Any) -> dict[str, Any]:
    """Types of a network's settings."""
    hints = typing.get_type_hints(network)
    if not issubclass(network, nn.Module):
        return {name: hints[name] for name in network._fields}
    names = [f.name for f in dataclasses.fields(network)]
    return {name: hints[name] for name in names if name not in HIDDEN}


def _is(value: Any, kind: Any, least: int) -> bool:
    """Whether a setting has its type; whole numbers are ``least`` or more."""
    options, origin = typing.get_args(kind), typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_is(value, option, least) for option in options)
    if origin is typing.Literal:
        return isinstance(value, str) and value in options
    if origin is not None:
        return (
            isinstance(value, tuple)
            and len(value) > 0
            and all(_is(part, options[0], least) for part in value)
        )
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is kind and (kind is not int or value >= least)


HIDDEN = ("parent", "name")
"""Fields of every module that are no settings."""


def _fields(network: Any) -> dict[str, Any]:
    if isinstance(network, nn.Module):
        names = [f.name for f in dataclasses.fields(network) if f.name not in HIDDEN]
        return {name: getattr(network, name) for name in names}
    return network._asdict()


def _plain(value: Any) -> Any:
    if type(value).__name__ in KNOWN:
        return describe(value)
    return list(value) if isinstance(value, tuple | list) else value
