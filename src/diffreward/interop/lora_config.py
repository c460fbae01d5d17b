"""How strong a LoRA is, by what was written down when it was trained.

PEFT keeps its settings in ``adapter_config.json``, diffusers in the header of the file
under ``lora_adapter_metadata``, there with the network's name in front of every key.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from diffreward import files
from diffreward.files import FileValueError

HEADER = "lora_adapter_metadata"
BESIDE = "adapter_config.json"
STRENGTH = ("r", "lora_alpha")
PATTERNS = ("rank_pattern", "alpha_pattern")
INITIAL = (None, True, False, "gaussian", "orthogonal", "eva")
"""Ways to begin that leave the adapted weights as they were; others change those."""
INERT = {
    *("alora_invocation_tokens", "auto_mapping", "base_model_name_or_path", "corda_config"),
    *("ensure_weight_tying", "eva_config", "exclude_modules", "inference_mode"),
    *("layers_pattern", "layers_to_transform", "loftq_config", "lora_dropout"),
    *("lora_ga_config", "megatron_config", "megatron_core", "peft_version"),
    *("qalora_group_size", "revision", "runtime_config", "target_modules", "task_type"),
}
"""Settings of the training, and of which modules: the tensors themselves tell those."""


class Strength(NamedTuple):
    """Of one adaptation."""

    rank: int
    alpha: float
    """The change is alpha / rank times the product, also where the training said it
    otherwise."""
    source: str
    """What says so."""


def check_kohya(path: Path, header: Mapping[str, str]) -> None:
    """Refuses a file without alpha whose kohya header has one that would count.

    Raises:
        ValueError: if so.
    """
    alpha, rank = header.get("ss_network_alpha"), header.get("ss_network_dim")
    if alpha not in (None, "None") and re.sub(r"\.0+$", "", alpha) != rank:
        raise FileValueError(
            f"{path} says alpha {alpha[:20]!r} and rank {str(rank)[:20]!r} in its header, "
            "but has no alpha beside its matrices; save it again with the script that made "
            "it"
        )


Strengths = Callable[[str, str], Strength | None]


def read_strengths(path: Path, header: Mapping[str, str]) -> Strengths:
    """What the header of a file, or the file beside it, says of every module.

    Args:
        path: of the adaptation.
        header: of its safetensors file.

    Returns:
        A function of the network (``unet``) and the module's dotted name; None where
        nothing is said.

    Raises:
        ValueError: for settings that change numbers in a way that is not known here.
    """
    beside = (path if path.is_dir() else path.parent) / BESIDE
    if HEADER in header:
        source = f"{path} ({HEADER})"
        try:
            settings = json.loads(header[HEADER])
        except (ValueError, RecursionError) as error:
            raise FileValueError(f"{source} is not valid JSON ({error})") from None
    elif beside.exists():
        source, settings = str(beside), files.read_json(beside)
    else:
        return lambda part, module: None
    if not isinstance(settings, dict):
        raise FileValueError(f"{source} is no object")
    parts = {part: _own(settings, part) for part in ("unet", "text_encoder")}
    for part, own in parts.items():
        if own:
            _check(own, f"{source}, {part}")

    def strength(part: str, module: str) -> Strength | None:
        own = parts[part]
        return _strength(own, module, source) if own else None

    return strength


def _own(settings: dict[str, Any], part: str) -> dict[str, Any]:
    """Settings of one network: those with its name in front, else those without any."""
    named = {
        k.removeprefix(f"{part}."): v
        for k, v in settings.items()
        if k.startswith(f"{part}.")
    }
    return named or {k: v for k, v in settings.items() if "." not in k}


def _check(own: dict[str, Any], where: str) -> None:
    if own.get("peft_type", "LORA") != "LORA":
        raise FileValueError(f"{where}: peft_type = {own['peft_type']!r} is no LoRA")
    for key in STRENGTH:
        value: Any = own.get(key)
        if type(value) not in (int, float) or not 0 < value < 1e6:  # true is an int
            raise FileValueError(f"{where}: {key} = {value!r} is no positive number")
    for key in PATTERNS:
        pattern = own.get(key) or {}
        if not isinstance(pattern, dict) or not all(
            re.fullmatch(r"\^?[\w.]+", name)
            and isinstance(value, int | float)
            and 0 < value < 1e6
            for name, value in pattern.items()
        ):
            raise FileValueError(f"{where}: {key} is not understood; names and numbers are")
    if not _among(own.get("init_lora_weights"), INITIAL):
        raise FileValueError(
            f"{where}: init_lora_weights = {own['init_lora_weights']!r} changes the "
            "weights that are adapted; convert it to a plain LoRA with PEFT"
        )
    read = {*STRENGTH, *PATTERNS, *INERT, "use_rslora", "peft_type", "init_lora_weights"}
    for key, value in own.items():
        if key in read or value in (None, False, {}, []):
            continue
        if key == "bias" and value == "none":
            continue
        raise FileValueError(
            f"{where}: {key} = {json.dumps(value)[:60]} is not supported; merge it into a "
            "pipeline folder instead"
        )


def _among(value: Any, known: tuple[Any, ...]) -> bool:
    return isinstance(value, bool | str | None) and value in known


def _strength(own: dict[str, Any], module: str, source: str) -> Strength:
    rank = _of(module, own.get("rank_pattern") or {}, own["r"])
    alpha = _of(module, own.get("alpha_pattern") or {}, own["lora_alpha"])
    # Rank-stabilised: divided by the root of the rank (Kalajdzievski, 2023).
    factor = rank**0.5 if own.get("use_rslora") else 1.0
    return Strength(int(rank), float(alpha) * factor, source)


def _of(module: str, pattern: dict[str, Any], default: Any) -> Any:
    """The value of the first name that the module's ends with; ``^`` means all of it."""
    for name, value in pattern.items():
        plain = name.removeprefix("^")
        if module == plain or (plain == name and module.endswith(f".{name}")):
            return value
    return default
