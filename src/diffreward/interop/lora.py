"""Low-rank adaptations (LoRA) of a pipeline, merged into its weights.

Hu et al. (2021): W + scale (alpha / rank) up down. Files of diffusers (three generations
of names), of PEFT and of the kohya scripts are understood. Alpha is a tensor of the file,
or stands in what the file or ``adapter_config.json`` beside it says of the training; where
nothing says it, it is the rank, as in diffusers.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save

from diffreward.files import FileValueError, write_bytes
from diffreward.interop.lora_config import Strength, check_kohya, read_strengths
from diffreward.interop.original_unet import original_names
from diffreward.interop.renaming import foreign_name
from diffreward.interop.tensors import finite, read_weights

PARTS = {
    "unet": ("unet.", "lora_unet_", "model.diffusion_model.", "diffusion_model."),
    "text_encoder": ("text_encoder.", "lora_te_"),
}
"""How the names of each network begin; names that begin otherwise are the U-Net's."""
PEFT = "base_model.model."
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
    """The change is alpha / rank times the product of the two."""


Adaptations = dict[str, Adaptation]
"""By the adapted module's name with underscores for dots."""


def read_lora(path: str | Path) -> dict[str, Adaptations]:
    """Adaptations of the U-Net and of the text encoder.

    Args:
        path: of the file, or of a folder with one.

    Raises:
        ValueError: naming the file, for anything that is no such file, for tensors of
            other kinds of adaptation, and for settings that change numbers in a way that
            is not known here.
    """
    weights = read_weights(path)
    finite(weights.tensors.items(), path)
    found: dict[str, dict[str, dict[str, np.ndarray]]] = {part: {} for part in PARTS}
    dotted: dict[str, str] = {}
    for name, value in weights.tensors.items():
        part, rest = _part(name)
        module, kind = _split(rest)
        if kind is None:
            raise FileValueError(
                f"{path}: {name} belongs to no LoRA of a kind that is read here (up and "
                "down matrices); merge it into a pipeline folder instead"
            )
        plain = _plain(module)
        tensors = found[part].setdefault(plain, {})
        if kind in tensors:
            raise FileValueError(f"{path}: {name} comes twice under different names")
        tensors[kind] = np.asarray(value, np.float32)
        dotted[plain] = module.replace(".processor.", ".")
    if not any("alpha" in t for modules in found.values() for t in modules.values()):
        check_kohya(Path(path), weights.header)
    strengths = read_strengths(Path(path), weights.header)
    result = {
        part: {
            m: _adaptation(t, strengths(part, dotted[m]), f"{path}: {m}")
            for m, t in modules.items()
        }
        for part, modules in found.items()
    }
    if not any(result.values()):
        raise FileValueError(f"{path} holds no tensors")
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
        ValueError: if a weight is missing, of another shape, or adapted twice.
    """
    merged = dict(tensors)
    places = {
        _plain(n.removesuffix(".weight")): n for n in tensors if n.endswith(".weight")
    }
    places = original_names(tensors) | places
    adapted: set[str] = set()
    for module, (down, up, alpha) in adaptations.items():
        # An output projection is the first of a list in newer models.
        name = places.get(module) or places.get(f"{module}_0")
        if name is None:
            raise FileValueError(f"{where}: there is no weight {module!r} to adapt")
        if name in adapted:
            raise FileValueError(f"{where}: {name} is adapted twice, under different names")
        adapted.add(name)
        weight = np.asarray(tensors[name], np.float32)
        # Compared before they are multiplied: the product may be as large as one likes.
        shape = (len(up), *down.shape[1:])
        if _without_ones(shape) != _without_ones(weight.shape):
            raise FileValueError(
                f"{where}: {module} adapts a weight of shape {shape}, but {name} "
                f"has shape {weight.shape}"
            )
        rank = len(down)
        change = (up.reshape(len(up), rank) @ down.reshape(rank, -1)) * (alpha / rank)
        merged[name] = weight + np.float32(scale) * change.reshape(weight.shape)
    return merged


def save_lora(path: str | Path, unet: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes changes of a U-Net's matrices as diffusers and PEFT keep them.

    Args:
        path: of the file, ``.safetensors``.
        unet: ``down`` (in, rank) and ``up`` (rank, out) by the paths of our parameters.
    """
    tensors = {}
    for ours, change in unet.items():
        module = foreign_name(ours.removeprefix("params/")).removesuffix(".weight")
        for name, part in (("lora_A", "down"), ("lora_B", "up")):
            value = np.ascontiguousarray(np.asarray(change[part], np.float32).T)
            tensors[f"unet.{module}.{name}.weight"] = value
    write_bytes(path, save(tensors, metadata={"format": "pt"}))


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A linear map is a convolution of one pixel."""
    return shape[:2] if shape[2:] == (1, 1) else shape


def _part(name: str) -> tuple[str, str]:
    name = name.removeprefix(PEFT)
    for part, prefixes in PARTS.items():
        for prefix in prefixes:
            if name.startswith(prefix):
                return part, name.removeprefix(prefix).removeprefix(PEFT)
    return ("text_encoder" if name.startswith("text_model.") else "unet"), name


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


def _adaptation(
    tensors: Mapping[str, np.ndarray], told: Strength | None, where: str
) -> Adaptation:
    if missing := {"down", "up"} - tensors.keys():
        raise FileValueError(f"{where} lacks its {' and '.join(sorted(missing))} matrix")
    down, up = tensors["down"], tensors["up"]
    matrices = down.ndim in (2, 4) and up.ndim in (2, 4) and down.size and up.size
    if not matrices or up.size != len(up) * len(down):
        raise FileValueError(f"{where}: shapes {up.shape} and {down.shape} do not multiply")
    rank = len(down)
    if told is not None and told.rank != rank:
        raise FileValueError(
            f"{where} has rank {rank}, but {told.source} says {told.rank}; it belongs to "
            "another"
        )
    if "alpha" not in tensors:
        return Adaptation(down, up, float(rank) if told is None else told.alpha)
    if tensors["alpha"].size != 1:
        raise FileValueError(
            f"{where}: alpha has shape {tensors['alpha'].shape}, not one number"
        )
    alpha = float(tensors["alpha"].reshape(()))
    if told is not None and abs(told.alpha - alpha) > 1e-6 * abs(alpha):
        raise FileValueError(
            f"{where} has alpha {alpha:g} as a tensor, but {told.source} makes it "
            f"{told.alpha:g}; remove the wrong one"
        )
    return Adaptation(down, up, alpha)
