"""Settings that a checkpoint keeps as OmegaConf's objects, without OmegaConf.

Its containers and nodes are read as inert objects (see :mod:`.unpickle`): a container keeps
its nodes in ``_content``, a node its value in ``_val``.
"""

from typing import Any

from diffreward.interop.unpickle import Inert

DEEPEST = 32
"""Containers within each other."""


def plain(value: Any) -> Any:
    """The same settings in plain dictionaries, lists and values.

    Raises:
        ValueError: for what is no setting, refers to another one that was not resolved, or
            is nested too deep.
    """
    return _plain(value, {}, 0)


def _plain(value: Any, known: dict[int, Any], depth: int) -> Any:
    if depth > DEEPEST:
        raise ValueError(f"its settings are nested deeper than {DEEPEST}")
    if isinstance(value, Inert):
        key = id(value)
        if key not in known:
            # What is referred to twice is read once.
            part = "_content" if "_content" in value.state else "_val"
            if part not in value.state:
                raise ValueError(f"its settings have a {value.name} without a value")
            known[key] = _plain(value.state[part], known, depth + 1)
        return known[key]
    if isinstance(value, dict):
        return {k: _plain(v, known, depth + 1) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v, known, depth + 1) for v in value]
    if isinstance(value, str) and "${" in value:
        raise ValueError(f"its setting {value[:60]!r} was not resolved before it was saved")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(f"its settings hold a {type(value).__name__}")
