"""Values of a config that no stage could use, refused before the first one starts."""

import functools
import math
import numbers
from typing import Any

import jax

from configs.common import ConfigDict
from diffreward import train
from diffreward.learn import SOURCES
from experiments.build import optimiser

TRAINING = {
    "steps": 1,
    "batch_size": 1,
    "accumulate": 1,
    "steps_per_dispatch": 1,
    "checkpoint_every": 1,
    "devices": 0,
    "clip_norm": 0,
    "clip_value": 0,
    "clip_weights": 0,
    "l2": 0,
}
"""Least values of every training section."""
NETWORK = {"width": 1, "depth": 1, "time_width": 0}
"""Of the sections that describe a perceptron."""
REWARD_SOURCES = tuple(name for name in SOURCES if name != "steered")
"""Of a section; what a steered base met is in rounds of their own (``rewards.rounds``)."""
REWARD = {"seeds": 1, **NETWORK}
"""Of sections that have them, beside those: rewards and classifiers."""


def at_least(section: ConfigDict, name: str, **least: float) -> None:
    """Refuses numbers of a section that are too small, infinite, or none at all (NaN).

    Args:
        section: of the config.
        name: of the section, for messages; empty for the config itself.
        **least: the least value of every key.

    Raises:
        ValueError: naming the key, its value and the least one.
    """
    for key, low in least.items():
        finite = "" if math.isfinite(section[key]) else "a finite number, "
        _need(section, name, key, section[key] >= low, f"{finite}{low} or more")


def positive(section: ConfigDict, name: str, *keys: str) -> None:
    """Refuses rates and lengths that are not above 0."""
    for key in keys:
        _need(section, name, key, section[key] > 0, "a positive number")


def finite(section: ConfigDict, name: str, *keys: str) -> None:
    """Refuses infinity, and what is no number at all."""
    for key in keys:
        _need(section, name, key, True, "a finite number")


def shares(section: ConfigDict, name: str, *keys: str) -> None:
    """Refuses anything that is not from 0 to 1."""
    for key in keys:
        _need(section, name, key, 0 <= section[key] <= 1, "a number from 0 to 1")


def check_sizes(section: ConfigDict, name: str, *keys: str) -> None:
    """Refuses anything but one or more positive whole numbers."""
    for key in keys:
        sizes = section[key]
        if not sizes or not all(_is_whole(n) and n > 0 for n in sizes):
            raise ValueError(
                f"{_label(name, key)} is {sizes!r}; write positive whole numbers, such as "
                "(1, 2, 4)"
            )


def _need(section: ConfigDict, name: str, key: str, holds: bool, words: str) -> None:
    if not (holds and math.isfinite(section[key])):
        raise ValueError(f"{_label(name, key)} is {section[key]}; use {words}")


def _label(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def check_seed(seed: int) -> None:
    """Refuses seeds that JAX and NumPy do not both take."""
    if not 0 <= seed < 2**31:
        raise ValueError(f"seed is {seed}; use a number from 0 to 2**31 - 1")


def check_scales(scales: Any, name: str = "evaluation.scales") -> None:
    """Refuses anything but one or more finite numbers."""
    finite = lambda x: isinstance(x, numbers.Real) and math.isfinite(x)
    if not isinstance(scales, tuple | list) or not scales or not all(map(finite, scales)):
        raise ValueError(f"{name} is {scales!r}; write numbers, such as (0.5, 1.0)")


def check_levels(levels: Any, num_steps: int, name: str) -> None:
    """Refuses anything but noise levels of a model, or none at all."""
    inside = lambda t: _is_whole(t) and 0 <= t < num_steps
    if not isinstance(levels, tuple | list) or not all(map(inside, levels)):
        raise ValueError(
            f"{name} is {levels!r}; write levels from 0 to {num_steps - 1}, such as (0, 2)"
        )


def check_held(section: ConfigDict, name: str) -> None:
    """Refuses penalties of weights for a reward that holds the base's energy still."""
    for key in ("clip_weights", "l2"):
        if section.get("network") == "residual" and section[key]:
            raise ValueError(
                f"{name}.{key} would move the base's energy, which network='residual' "
                f"holds still; set {name}.{key}=0 or use another network"
            )


def check_network(section: ConfigDict, name: str) -> None:
    """Refuses a denoiser's network without width, depth or sizes."""
    at_least(section, name, **NETWORK)
    check_sizes(section, name, "dim_mults")


def check_model(section: ConfigDict, name: str = "model") -> None:
    """Refuses a ``model`` section without steps, levels, width or a valid condition."""
    at_least(section, name, horizon=1, num_steps=1, clip=0, action_weight=0)
    check_network(section, name)
    if not all(map(_is_whole, section.pinned)):
        raise ValueError(
            f"{name}.pinned is {section.pinned!r}; write steps, such as (0, -1)"
        )
    outside = [p for p in section.pinned if not -section.horizon <= p < section.horizon]
    if outside:
        raise ValueError(
            f"{name}.pinned: step {outside[0]} is outside of a horizon of {section.horizon}"
        )


def check_window(section: ConfigDict, name: str, horizon: int) -> None:
    """Refuses windows of a reward that do not tile the horizon; 0 is all of it."""
    at_least(section, name, window=0)
    if section.window and horizon % section.window:
        raise ValueError(
            f"{name}.window={section.window} does not divide model.horizon={horizon}; "
            "choose a divisor, or 0 for the whole horizon"
        )


def check_training(config: ConfigDict, *names: str, prefix: str = "") -> None:
    """Refuses training sections that would fail, or train nothing.

    Args:
        config: of the experiment.
        *names: of the sections, with dots for those inside of others.
        prefix: of their names, for messages.

    Raises:
        ValueError: naming the section, the key and what it may be.
    """
    for name in names:
        section = functools.reduce(getattr, name.split("."), config)
        name = _label(prefix, name)
        at_least(section, name, **TRAINING)
        at_least(
            section, name, **{k: n for k, n in REWARD.items() if k in section.to_dict()}
        )
        positive(section, name, "learning_rate")
        check_held(section, name)
        if not 0 <= section.ema_decay < 1:
            raise ValueError(
                f"{name}.ema_decay is {section.ema_decay}; use a number in [0, 1)"
            )
        optimiser(section)  # names of schedules, length of the warm-up
        check_batch(section, name)


def check_batch(section: Any, name: str) -> None:
    """Refuses a batch that does not split over sets, slices and devices."""
    sets = 1
    if "source" in section:
        at_least(section, name, samples=1)
        sets = len(SOURCES[section.source])
    devices = section.devices or jax.device_count()
    train.make_mesh(devices, devices=jax.devices())  # as many as there are
    parts = section.accumulate * devices
    size = section.batch_size // sets * sets
    if size < 1 or size % parts:
        raise ValueError(
            f"{name}.batch_size={section.batch_size} does not split over {sets} sets of "
            f"windows, {section.accumulate} slices and {devices} devices; use a multiple "
            f"of {math.lcm(sets, parts)}"
        )
