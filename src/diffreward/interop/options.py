"""Configs of foreign models: what is read, what must have one value, what is ignored."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from diffreward import files
from diffreward.files import FileValueError

AVERAGING = (
    *("decay", "inv_gamma", "min_decay", "optimization_step", "power"),
    *("update_after_step", "use_ema_warmup"),
)
"""What an averaged model of diffusers says of its averaging, which is over."""
LARGEST = 2**20
"""Of any size in a config."""


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object of a folder.

    Raises:
        ValueError: if the file is missing, or no JSON object.
    """
    if not path.exists():
        raise FileValueError(f"{path} is missing")
    value = files.read_json(path)
    if not isinstance(value, dict):
        raise FileValueError(f"{path} holds a {type(value).__name__} instead of an object")
    return value


def check_options(
    config: Mapping[str, Any],
    path: Path,
    *,
    read: Collection[str],
    fixed: Mapping[str, Any],
    ignored: Collection[str] = (),
) -> None:
    """Refuses what our networks do not have, by name.

    Args:
        config: as found.
        path: of its file, for messages.
        read: options that the caller obeys; those must be there.
        fixed: options with the one value that ours have; a tuple lists several. Absent
            options have it by default.
        ignored: options that change nothing we compute. Names that begin with an
            underscore are ignored, too.

    Raises:
        ValueError: for a missing option, an unknown one, or an unsupported value.
    """
    if missing := [name for name in read if name not in config]:
        raise FileValueError(f"{path} lacks {missing[0]}")
    for name, value in config.items():
        if name in read or name in ignored or name.startswith("_"):
            continue
        if name not in fixed:
            if value is None or value is False:  # a later version's, switched off
                continue
            raise FileValueError(f"{path}: unknown option {name} = {shown(value)}")
        allowed = fixed[name] if isinstance(fixed[name], tuple) else (fixed[name],)
        if not any(_same(value, a) for a in allowed):
            raise FileValueError(
                f"{path}: {name} = {shown(value)} is not supported; only "
                + " or ".join(repr(a) for a in allowed[:4])
            )


def check_class(config: Mapping[str, Any], path: Path, *names: str) -> None:
    """Refuses a config of another class, or of none.

    Raises:
        ValueError: naming it.
    """
    found = config.get("_class_name")
    if found is None:
        raise FileValueError(f"{path} lacks _class_name, so what it describes is unknown")
    if found not in names:
        raise FileValueError(
            f"{path}: a {shown(found)} is not supported; only "
            + " or ".join(repr(name) for name in names)
        )


def whole(config: Mapping[str, Any], name: str, path: Path, *, least: int = 1) -> int:
    """A whole number of a config.

    Raises:
        ValueError: if it is none, below ``least`` or beyond any size.
    """
    return _whole(config[name], name, path, least)


def wholes(config: Mapping[str, Any], name: str, path: Path) -> tuple[int, ...]:
    """A list of positive whole numbers, at most sixteen.

    Raises:
        ValueError: if it is none.
    """
    found = config[name]
    if not isinstance(found, list) or not 1 <= len(found) <= 16:
        raise FileValueError(f"{path}: {name} = {shown(found)} is no list of sizes")
    return tuple(_whole(value, name, path, 1) for value in found)


def number(
    config: Mapping[str, Any], name: str, path: Path, *, above: float = 0.0
) -> float:
    """A number of a config, above a bound.

    Raises:
        ValueError: if it is none.
    """
    value = config[name]
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if not plain or not above < value < 1e9:
        raise FileValueError(
            f"{path}: {name} = {shown(value)} is no number above {above:g}"
        )
    return float(value)


def shown(value: Any) -> str:
    """A value as a message shows it: short, and never deep."""
    if isinstance(value, dict):
        return "{...}" if value else "{}"
    if isinstance(value, list):
        plain = all(not isinstance(v, list | dict) for v in value)
        return repr(value) if plain and len(value) < 20 else f"[... {len(value)} values]"
    return repr(value) if len(str(value)[:100]) < 100 else f"{str(value)[:90]!r}..."


def _whole(value: Any, name: str, path: Path, least: int) -> int:
    if type(value) is not int or not least <= value <= LARGEST:
        raise FileValueError(
            f"{path}: {name} = {shown(value)} is not supported; one number, whole, from "
            f"{least} to {LARGEST:,}"
        )
    return value


def _same(value: Any, allowed: Any) -> bool:
    """Equal and of one kind: true is not 1."""
    return isinstance(value, bool) == isinstance(allowed, bool) and value == allowed
