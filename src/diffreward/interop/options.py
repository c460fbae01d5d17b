"""Configs of foreign models: what is read, what must have one value, what is ignored."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any


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
        raise ValueError(f"{path} lacks {missing[0]}")
    for name, value in config.items():
        if name in read or name in ignored or name.startswith("_"):
            continue
        if name not in fixed:
            if value in (None, False):  # an option of a later version, switched off
                continue
            raise ValueError(f"{path}: unknown option {name} = {value!r}")
        allowed = fixed[name] if isinstance(fixed[name], tuple) else (fixed[name],)
        if value not in allowed:
            raise ValueError(
                f"{path}: {name} = {value!r} is not supported; only "
                + " or ".join(repr(a) for a in allowed)
            )
