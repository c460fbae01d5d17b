"""Reward networks of the zoo: nets shown samples of any shape, in nats."""

from typing import Any

import jax
import jax.numpy as jnp

from diffreward.diffusion import Schedule
from diffreward.extract.settings import Training
from diffreward.names import choose
from diffreward.networks import (
    AsTrajectory,
    InnerProductReward,
    LevelScaled,
    ScalarReward,
    TrajectoryMLP,
    UnetReward,
    ValueUnet,
)
from diffreward.networks.image_value import GROUPS
from diffreward.reward import score_scale

IMAGE_NETWORKS = {"unet": 32, "value": 32}
"""Networks of images by name, and the usual width of each: ``<x, f(x, t)>`` with a U-Net
f, and the published image reward."""


def image_network(name: str, shape: tuple[int, ...], width: int, levels: int) -> Any:
    """A reward network of images, for :class:`Training`.

    Args:
        name: one of ``IMAGE_NETWORKS``.
        shape: (height, width, channels) of a sample.
        width: channels of the first level; every further one has twice as many.
        levels: of the U-Net; each halves the image.

    Raises:
        ValueError: for samples that are no images, or sizes that do not fit them.
    """
    choose("image network", name, IMAGE_NETWORKS)
    if len(shape) != 3:
        raise ValueError(f"network {name} takes (height, width, channels), not {shape}")
    if width % GROUPS:
        raise ValueError(f"network {name}: width must be a multiple of {GROUPS}")
    # The published one ends in three more.
    halvings = levels - 1 + (3 if name == "value" else 0)
    if any(side % 2**halvings for side in shape[:2]):
        raise ValueError(
            f"network {name} of depth {levels} halves images {halvings} times, which "
            f"{shape[0]} x {shape[1]} cannot be; use a smaller depth, or a perceptron"
        )
    mults = tuple(2**i for i in range(levels))
    if name == "value":
        return ValueUnet(width, mults)
    return UnetReward(tuple(width * mult for mult in mults))


def inner_product(settings: Training) -> Any:
    """The network of gradients: given, or ``<x, f(x, t)>`` with a perceptron f."""
    return settings.network or AsTrajectory(InnerProductReward(trunk(settings)))


def scalar(settings: Training, schedule: Schedule, scale: float = 1.0) -> Any:
    """The network of values: given, or a perceptron with a linear read-out.

    It is multiplied with sqrt(alpha_bar), the share of x_0 left in x_t: what noise
    destroys no reward can know.
    """
    net = settings.network or AsTrajectory(ScalarReward(trunk(settings)))
    return LevelScaled(net, tuple((scale * schedule.sqrt_alpha_bar).tolist()))


def trunk(settings: Training) -> TrajectoryMLP:
    """The perceptron of the settings."""
    return TrajectoryMLP(settings.width, settings.depth)


def score_scales(schedule: Schedule) -> tuple[float, ...]:
    """`score_scale` of every level."""
    levels = jnp.arange(schedule.num_steps)
    scales = jax.vmap(lambda t: score_scale(schedule, t))(levels)
    return tuple(scales.tolist())
