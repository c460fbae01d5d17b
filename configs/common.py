"""What configs share: switches after the colon, and a section that trains something."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from diffreward.names import choose

if TYPE_CHECKING:

    class ConfigDict:
        """A config to the type checker: any key, any value."""

        def __init__(self, initial: Any = None) -> None: ...
        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...
        def __getitem__(self, name: str) -> Any: ...
        def __setitem__(self, name: str, value: Any) -> None: ...

else:
    from ml_collections import ConfigDict

__all__ = ["ConfigDict", "choose", "parse_switches", "training"]


def parse_switches(argument: str, **kinds: Collection[str]) -> dict[str, str]:
    """Splits ``"umaze,smoke"`` into one value per kind.

    The first name of every kind is its default; order does not matter.

    Raises:
        ValueError: for a name of no kind, with the nearest one, or two of one kind.
    """
    chosen: dict[str, str] = {}
    everything = [name for names in kinds.values() for name in names]
    for word in filter(None, (w.strip() for w in (argument or "").split(","))):
        choose("switch", word, everything)
        kind = next(k for k, names in kinds.items() if word in names)
        if kind in chosen:
            raise ValueError(f"two values for {kind}: {chosen[kind]!r} and {word!r}")
        chosen[kind] = word
    return {kind: chosen.get(kind, next(iter(names))) for kind, names in kinds.items()}


def training(*, steps: int, batch_size: int, learning_rate: float) -> ConfigDict:
    """A section that describes how one stage is trained."""
    t = ConfigDict()
    t.steps = steps
    t.batch_size = batch_size
    t.learning_rate = learning_rate
    t.schedule = "cosine"
    t.warmup = 0
    t.clip_norm = 1.0  # global gradient norm; 0 for none
    t.clip_value = 0.0  # per entry; 0 for none
    t.clip_weights = 0.0  # of the network, after every update; 0 for none
    t.l2 = 0.0  # factor of the sum of squares of all parameters
    t.ema_decay = 0.998
    t.accumulate = 1  # microbatches per step
    t.bfloat16 = False
    t.devices = 0  # that share every batch; 0 for all
    t.steps_per_dispatch = 50
    t.checkpoint_every = 500
    return t
