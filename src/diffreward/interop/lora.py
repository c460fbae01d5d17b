"""Low-rank adaptations (LoRA) of a pipeline, merged into its weights.

Hu et al. (2021): W + scale (alpha / rank) up down. Files of diffusers (three generations
of names) and of the kohya scripts are understood.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffreward.interop.tensors import read_tensors

PARTS = {"unet": ("unet.", "lora_unet_"), "text_encoder": ("text_encoder.", "lora_te_")}
"""How the names of each network begin; names that begin otherwise are the U-Net's."""
_ENDS = (
    (r"\.lora_A(\.\w+)?\.weight$", "down"),
    (r"\.lora_B(\.\w+)?\.weight$", "up"),
    (r"(\.lora|_lora|\.lora_linear_layer)?\.(lora_)?down\.weight$", "down"),
    (r"(\.lora|_lora|\.lora_linear_layer)?\.(lora_)?up\.weight$", "up"),
    (r"(\.lora|_lora)?\.alpha$", "alpha"),
)


class Adaptation(NamedTuple):
    """Of one weight."""

    down: np.ndarray
    """(rank, in), or (rank, in, height, width) of a convolution."""
    up: np.ndarray
    """(out, rank), or (out, rank, 1, 1)."""
    alpha: float


Adaptations = dict[str, Adaptation]
"""By the adapted module's name with underscores for dots."""


def read_lora(path: str | Path) -> dict[str, Adaptations]:
    """Adaptations of the U-Net and of the text encoder.

    Raises:
        ValueError: naming the file, for anything that is no such file, and for tensors of
            other kinds of adaptation.
    """
    found: dict[str, dict[str, dict[str, np.ndarray]]] = {part: {} for part in PARTS}
    for name, value in read_tensors(path).items():
        part, rest = _part(name)
        module, kind = _split(rest)
        if kind is None:
            raise ValueError(
                f"{path}: {name} belongs to no LoRA of a kind that is read here (up and "
                "down matrices); merge it into a pipeline folder instead"
            )
        tensors = found[part].setdefault(_plain(module), {})
        if kind in tensors:
            raise ValueError(f"{path}: {name} comes twice under different names")
        tensors[kind] = np.asarray(value, np.float32)
    result = {
        part: {m: _adaptation(t, f"{path}: {m}") for m, t in modules.items()}
        for part, modules in found.items()
    }
    if not any(result.values()):
        raise ValueError(f"{path} holds no tensors")
    return result


def merge_lora(
    tensors: Mapping[str, np.ndarray],
    adaptations: Adaptations,
    scale: float,
    where: str | Path,
) -> dict[str, np.ndarray]:
    """Weights with adaptations added to those they belong to.

    Args:
        tensors: of the network, by their names in its file.
        adaptations: see :func:`read_lora`.
        scale: strength; 1 is what was trained, 0 changes nothing.
        where: of the adaptations, for messages.

    Raises:
        ValueError: if a weight is missing or of another shape.
    """
    merged = dict(tensors)
    places = {_plain(n.removesuffix(".weight")): n for n in tensors}
    for module, (down, up, alpha) in adaptations.items():
        # An output projection is the first of a list in newer models.
        name = places.get(module) or places.get(f"{module}_0")
        if name is None:
            raise ValueError(f"{where}: there is no weight {module!r} to adapt")
        rank = len(down)
        change = (up.reshape(len(up), rank) @ down.reshape(rank, -1)) * (alpha / rank)
        weight = np.asarray(tensors[name], np.float32)
        if change.shape != (len(weight), weight[0].size):
            raise ValueError(
                f"{where}: {module} adapts a weight of shape {change.shape}, but {name} "
                f"has shape {weight.shape}"
            )
        merged[name] = weight + scale * change.reshape(weight.shape)
    return merged


def _part(name: str) -> tuple[str, str]:
    for part, prefixes in PARTS.items():
        for prefix in prefixes:
            if name.startswith(prefix):
                return part, name.removeprefix(prefix)
    return "unet", name


def _split(name: str) -> tuple[str, str | None]:
    """Module, and which of its tensors a name is."""
    for pattern, kind in _ENDS:
        module, count = re.subn(pattern, "", name)
        if count:
            return module, kind
    return name, None


def _plain(module: str) -> str:
    """One spelling of a module: attention processors are no modules of ours."""
    plain = module.replace(".processor.", ".").replace(".", "_")
    return plain.removeprefix("text_model_")


def _adaptation(tensors: Mapping[str, np.ndarray], where: str) -> Adaptation:
    if missing := {"down", "up"} - tensors.keys():
        raise ValueError(f"{where} lacks its {' and '.join(sorted(missing))} matrix")
    down, up = tensors["down"], tensors["up"]
    rank = len(down)
    if up.size != len(up) * rank:
        raise ValueError(f"{where}: shapes {up.shape} and {down.shape} do not multiply")
    return Adaptation(down, up, float(tensors.get("alpha", rank)))
