"""What a policy of LeRobot was normalised with.

The statistics of its data stand among its weights or, since version 0.4, in a file beside
them that ``policy_preprocessor.json`` names.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffreward.data import Normaliser
from diffreward.interop.options import read_object, shown
from diffreward.interop.tensors import read_tensors

STATISTICS = ("normalize_inputs.", "normalize_targets.", "unnormalize_outputs.")
"""Beginnings of the names of statistics among weights."""
STATE, ENVIRONMENT = "observation.state", "observation.environment_state"
STEPS = {
    *("rename_observations_processor", "to_batch_processor", "device_processor"),
    "normalizer_processor",
}
"""Steps of a preprocessor that change no number but by its statistics."""
PARTS = {"MEAN_STD": ("mean", "std"), "MIN_MAX": ("min", "max")}
"""Statistics that a mode needs."""


class Feature(NamedTuple):
    """An array of the data."""

    name: str
    kind: str
    """STATE, ENV, VISUAL or ACTION; the mode of normalisation belongs to it."""
    size: int


class Statistics:
    """Of one policy."""

    def __init__(
        self, config: dict[str, Any], tensors: dict[str, np.ndarray], folder: Path
    ):
        """Finds them.

        Raises:
            ValueError: if they contradict each other, or are not what is known here.
        """
        path = folder / "config.json"
        modes = config["normalization_mapping"]
        if not isinstance(modes, dict):
            raise ValueError(
                f"{path}: normalization_mapping = {shown(modes)} is no mapping"
            )
        self.folder, self.modes = folder, modes
        self.found = _among_weights(tensors, folder)
        processor = folder / "policy_preprocessor.json"
        if not self.found and processor.exists():
            self.found, own = _of_processor(processor)
            if own != modes:
                raise ValueError(f"{processor}: norm_map differs from that of {path}")

    def normaliser(self, feature: Feature) -> Normaliser:
        """The coordinates that the policy sees a feature in.

        Raises:
            ValueError: if they are not told, or of a kind that is not known here.
        """
        size = feature.size
        # What a mapping does not name is left as it is.
        mode = self.modes.get(feature.kind, "IDENTITY")
        if mode == "IDENTITY":
            return Normaliser(np.zeros(size, np.float32), np.ones(size, np.float32))
        if not isinstance(mode, str) or mode not in PARTS:
            raise ValueError(
                f"{self.folder / 'config.json'}: normalization_mapping has "
                f"{feature.kind} = {shown(mode)}, which is not supported; only "
                "'MEAN_STD', 'MIN_MAX', 'IDENTITY'"
            )
        first, second = (self._numbers(feature, part) for part in PARTS[mode])
        if mode == "MEAN_STD":
            shift, scale = first, np.where(second > 0, second, 1.0)
        else:
            # An entry that never varies is shown as -1.
            scale = np.where(second > first, (second - first) / 2, 1.0)
            shift = first + scale
        return Normaliser(shift.astype(np.float32), scale.astype(np.float32))

    def _numbers(self, feature: Feature, part: str) -> np.ndarray:
        value = self.found.get(f"{feature.name}.{part}")
        if value is None or value.size != feature.size or not np.isfinite(value).all():
            raise ValueError(
                f"{self.folder} has no {part} of {feature.name} ({feature.size} finite "
                "numbers), neither among its weights nor in a file that "
                "policy_preprocessor.json names; copy both there"
            )
        return np.asarray(value, np.float64).reshape(-1)


def _among_weights(tensors: dict[str, np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    """By feature and name of the statistic."""
    # Points in the names of features were written as underscores.
    names = {
        f"buffer_{name.replace('.', '_')}": name for name in (STATE, ENVIRONMENT, "action")
    }
    found: dict[str, np.ndarray] = {}
    for tensor, value in tensors.items():
        if not tensor.startswith(STATISTICS):
            continue
        buffer, _, part = tensor.split(".", 1)[1].rpartition(".")
        key = f"{names.get(buffer, buffer)}.{part}"
        if key in found and not np.array_equal(found[key], value):
            raise ValueError(f"{folder} has statistics of {key} that differ")
        found[key] = value
    return found


def _of_processor(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Statistics of a preprocessor's normaliser, and its modes."""
    steps = read_object(path).get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise ValueError(f"{path} has no list of steps")
    names = [step.get("registry_name") for step in steps]
    if odd := [name for name in names if not isinstance(name, str) or name not in STEPS]:
        raise ValueError(f"{path}: a step {shown(odd[0])} is not supported")
    own = [step for step in steps if step["registry_name"] == "normalizer_processor"]
    file = own[0].get("state_file") if len(own) == 1 else None
    if not isinstance(file, str) or Path(file).name != file:
        raise ValueError(
            f"{path} has no normalizer_processor whose state_file lies beside it"
        )
    if not (path.parent / file).is_file():
        raise ValueError(f"{path}: its state_file {file} is missing; copy it there")
    settings = own[0].get("config")
    modes = settings.get("norm_map") if isinstance(settings, dict) else None
    if not isinstance(modes, dict):
        raise ValueError(f"{path}: its normalizer_processor has no norm_map")
    return read_tensors(path.parent / file), modes
