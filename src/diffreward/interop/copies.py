"""Copies of one network in a checkpoint: trained, averaged, wrapped, nested.

Trainers save ``{step, model, ema}``, ``{state_dict, callbacks, ...}`` or ``{params}``, and
the names inside begin with ``model.``, ``net.``, ``ema_model.`` and the like. A copy is
found by one tensor that every network of a kind has, at whatever place it stands.
"""

import re
from collections.abc import Iterator, Mapping
from os.path import commonprefix
from typing import Any, NamedTuple

import numpy as np

from diffreward.files import FileValueError
from diffreward.interop.tensors import unwrapped

DEEPEST = 6
"""Dictionaries within each other that are looked into."""
_AVERAGED = re.compile(
    r"(?<![A-Za-z])([Ee]ma|[Ss]wa|[Aa]veraged?|[Ss]hadow)(?![a-z])|(EMA|SWA)(?![a-z])"
    r"|[Mm]oving_?[Aa]verage"
)
_NOT_AVERAGED = re.compile(r"(?i)non?_?ema|without|online")


class Copy(NamedTuple):
    """The tensors of one network."""

    label: tuple[str, ...]
    """Where it stands: keys of dictionaries, then parts of the names."""
    tensors: dict[str, np.ndarray]
    """Named as in the network itself."""
    beside: dict[str, np.ndarray]
    """Tensors of the same state dict by the last part of their names; of several, the one
    that stands nearest."""

    @property
    def name(self) -> str:
        """The label as one word."""
        return "/".join(self.label) or "(unnamed)"

    @property
    def averaged(self) -> bool:
        """Whether the label says that it is an average over training."""
        return any(map(_AVERAGED.search, self.label)) and not any(
            map(_NOT_AVERAGED.search, self.label)
        )


def find_copies(saved: Any, anchor: str, where: str) -> list[Copy]:
    """All copies of a network in what a checkpoint holds, in the order of their labels.

    Args:
        saved: containers of tensors.
        anchor: name of a tensor of the network, such as ``time_mlp.1.weight``.
        where: the file, for messages.

    Raises:
        ValueError: if names are equal without the names of wrappers.
    """
    copies = []
    for keys, found in _dictionaries(saved):
        tensors = unwrapped(_tensors(found), where)
        for prefix in _prefixes(tensors, anchor):
            near = sorted(tensors, key=lambda n: len(commonprefix([n, prefix])))
            inside = {
                n.removeprefix(prefix): tensors[n] for n in near if n.startswith(prefix)
            }
            beside = {n.rsplit(".", 1)[-1]: tensors[n] for n in near}
            copies.append(Copy((*keys, *prefix.split(".")[:-1]), inside, beside))
    return sorted(_short_labels(copies), key=lambda copy: copy.label)


def choose_copy(copies: list[Copy], copy: str | None, where: str) -> Copy:
    """One of several copies.

    Args:
        copies: at least one.
        copy: what the user names: a label, a part of one, ``ema`` for the averaged copy
            or ``model`` for the one that is not; by default the only one, or the averaged
            one.
        where: the file, for messages.

    Raises:
        ValueError: if that is none or several; their labels are listed.
    """
    averaged = [c for c in copies if c.averaged]
    if copy is None:
        ways = [copies, averaged]
    else:
        kind = {"ema": averaged, "model": [c for c in copies if not c.averaged]}
        ways = [
            [c for c in copies if c.name == copy],
            [c for c in copies if copy in c.label],
            kind.get(copy, []),
        ]
    for found in ways:
        if len(found) == 1:
            return found[0]
    names = ", ".join(c.name for c in copies[:8])
    asked = "" if copy is None else f", and {copy!r} is not one of them"
    raise FileValueError(
        f"{where} holds {len(copies)} copies of the network: {names}{asked}; name one of "
        "them with --base-copy, --expert-copy or --model-copy"
    )


def find_all(saved: Any, name: str) -> list[np.ndarray]:
    """Tensors of that name, or whose name ends with it, wherever they stand."""
    found = [_tensors(value) for _, value in _dictionaries(saved)]
    return [v for d in found for n, v in d.items() if n.rsplit(".", 1)[-1] == name]


def _dictionaries(saved: Any) -> Iterator[tuple[tuple[str, ...], dict[Any, Any]]]:
    """Dictionaries in dictionaries; each once, however often it is referred to."""
    level, seen = [((), saved)], set()
    for _ in range(DEEPEST):
        below = []
        for keys, value in level:
            if isinstance(value, dict) and id(value) not in seen:
                seen.add(id(value))
                yield keys, value
                below += [((*keys, str(k)), v) for k, v in value.items()]
        level = below


def _tensors(found: dict[Any, Any]) -> dict[str, np.ndarray]:
    return {
        k: v for k, v in found.items() if isinstance(k, str) and isinstance(v, np.ndarray)
    }


def _prefixes(names: Mapping[str, Any], anchor: str) -> list[str]:
    """What stands before the anchor, without those inside a network that has one itself."""
    found = {
        n.removesuffix(anchor) for n in names if n == anchor or n.endswith(f".{anchor}")
    }
    outer: list[str] = []
    for prefix in sorted(found, key=len):
        if not any(prefix.startswith(o) for o in outer):
            outer.append(prefix)
    return outer


def _short_labels(copies: list[Copy]) -> list[Copy]:
    """Labels without what all of them have in common at their ends."""
    labels = [c.label for c in copies]
    for side in (0, -1):
        while all(labels) and len({label[side] for label in labels}) == 1:
            labels = [label[1:] if side == 0 else label[:-1] for label in labels]
    return [c._replace(label=label) for c, label in zip(copies, labels, strict=True)]
