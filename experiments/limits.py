"""Values of a config that no stage could use, refused before the first one starts."""

import math
import numbers
from typing import Any

import jax

from configs.common import ConfigDict
from diffreward import train
from experiments import tasks

TRAINING = {
    "steps": 1,
    "batch_size": 1,
    "accumulate": 1,
    "steps_per_dispatch": 1,
    "checkpoint_every": 1,
    "devices": 0,
    "clip_norm": 0,
    "clip_value": 0,
}
"""Least values of every training section."""
REWARD = {"seeds": 1, "width": 1, "depth": 1, "time_width": 0}
"""Of the sections that train a scalar, beside those."""


def at_least(section: ConfigDict, name: str, **least: float) -> None:
    """Refuses numbers of a section that are too small, or none at all (NaN).

    Raises:
        ValueError: naming the key, its value and the least one.
    """
    for key, low in least.items():
        if not section[key] >= low:
            raise ValueError(f"{name}.{key} is {section[key]}; use {low} or more")


def check_seed(seed: int) -> None:
    """Refuses seeds that JAX and NumPy do not both take."""
    if not 0 <= seed < 2**31:
        raise ValueError(f"seed is {seed}; use a number from 0 to 2**31 - 1")


def check_scales(scales: Any, name: str = "evaluation.scales") -> None:
    """Refuses anything but one or more finite numbers."""
    finite = lambda x: isinstance(x, numbers.Real) and math.isfinite(x)
    if not isinstance(scales, tuple | list) or not scales or not all(map(finite, scales)):
        raise ValueError(f"{name} is {scales!r}; write numbers, such as (0.5, 1.0)")


def check_model(section: ConfigDict) -> None:
    """Refuses a ``model`` section without steps, levels, width or a valid condition."""
    at_least(section, "model", horizon=1, num_steps=1, width=1, depth=1, time_width=0)
    outside = [p for p in section.pinned if not -section.horizon <= p < section.horizon]
    if outside:
        raise ValueError(
            f"model.pinned: step {outside[0]} is outside of a horizon of {section.horizon}"
        )


def check_window(section: ConfigDict, name: str, horizon: int) -> None:
    """Refuses windows of a reward that do not tile the horizon."""
    at_least(section, name, window=0)
    if horizon % (section.window or horizon):
        raise ValueError(
            f"{name}.window={section.window} does not divide model.horizon={horizon}; "
            "choose a divisor"
        )


def check_training(config: ConfigDict, *names: str) -> None:
    """Refuses training sections that would fail, or train nothing.

    Raises:
        ValueError: naming the section, the key and what it may be.
    """
    for name in names:
        section = config[name]
        at_least(section, name, **TRAINING)
        if "seeds" in section:
            at_least(section, name, **REWARD)
        if not 0 < section.learning_rate < math.inf:
            raise ValueError(
                f"{name}.learning_rate is {section.learning_rate}; use a positive number"
            )
        if not 0 <= section.ema_decay < 1:
            raise ValueError(
                f"{name}.ema_decay is {section.ema_decay}; use a number in [0, 1)"
            )
        tasks.optimiser(section)  # names of schedules, length of the warm-up
        check_batch(section, name)


def check_batch(section: Any, name: str) -> None:
    """Refuses a batch that does not split over sets, slices and devices."""
    sets = 1
    if "source" in section:
        at_least(section, name, samples=1)
        sets = len(tasks.SOURCES[section.source])
    devices = train.make_mesh(section.devices or jax.device_count()).shape["data"]
    parts = section.accumulate * devices
    size = section.batch_size // sets * sets
    if size < 1 or size % parts:
        raise ValueError(
            f"{name}.batch_size={section.batch_size} does not split over {sets} sets of "
            f"windows, {section.accumulate} slices and {devices} devices; use a multiple "
            f"of {math.lcm(sets, parts)}"
        )
