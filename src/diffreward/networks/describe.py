"""Networks as plain data: a name and its settings, from which they are built again."""

import dataclasses
from typing import Any

import flax.linen as nn

from diffreward.networks.energy import EnergyDenoiser
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


def build(description: dict[str, Any]) -> Any:
    """The network of a description.

    Raises:
        ValueError: for a name or a setting that does not exist.
    """
    settings = dict(description)
    name = settings.pop("name", None)
    if name not in KNOWN:
        raise ValueError(f"unknown network {name!r}; known are {', '.join(sorted(KNOWN))}")
    settings = {
        k: build(v) if isinstance(v, dict) else tuple(v) if isinstance(v, list) else v
        for k, v in settings.items()
    }
    try:
        return KNOWN[name](**settings)
    except TypeError as error:
        raise ValueError(f"network {name}: {error}") from error


def _fields(network: Any) -> dict[str, Any]:
    if isinstance(network, nn.Module):
        hidden = ("parent", "name")
        names = [f.name for f in dataclasses.fields(network) if f.name not in hidden]
        return {name: getattr(network, name) for name in names}
    return network._asdict()


def _plain(value: Any) -> Any:
    if type(value).__name__ in KNOWN:
        return describe(value)
    return list(value) if isinstance(value, tuple | list) else value
