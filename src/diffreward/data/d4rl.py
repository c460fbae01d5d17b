"""HDF5 files in D4RL's layout: flat arrays over all steps (Fu et al., 2020)."""

import re
from pathlib import Path

from diffreward.data.episodes import Episodes
from diffreward.data.hdf5 import reading_hdf5
from diffreward.files import FileValueError

_REQUIRED = ("observations", "actions")
_OPTIONAL = ("rewards", "terminals", "timeouts")

_ADROIT = ("pen", "hammer", "door", "relocate")
STEP_LIMITS = {
    **dict.fromkeys(("halfcheetah", "hopper", "walker2d", "ant"), 1000),
    "pen": 100,
    **dict.fromkeys(_ADROIT[1:], 200),
    "kitchen": 280,
}
"""Steps after which D4RL's environments end an episode, as the package registers them."""


def step_limit(name: str) -> int | None:
    """Steps of the longest episode of a task, by a name that begins with it.

    People demonstrated Adroit's tasks for longer than the environments' limits, so only
    what its experts recorded has one.
    """
    words = re.findall(r"[a-z0-9]+", name.lower())
    if not words or (words[0] in _ADROIT and "expert" not in words):
        return None
    return STEP_LIMITS.get(words[0])


def read_hdf5(path: str | Path, *, limit: int | None = None) -> Episodes:
    """Reads and checks any file in D4RL's layout; extra keys are ignored.

    Files of D4RL's first version have no ``timeouts``: their episodes are cut where the
    environment cuts them.

    Args:
        path: of the file.
        limit: steps after which the environment ends an episode; by default that of the
            task with which the file's name begins, if it is known.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file and what is wrong with it.
    """
    path = Path(path)
    limit = step_limit(path.name) if limit is None else limit
    with reading_hdf5(path) as file:
        missing = [key for key in _REQUIRED if not file.has(key)]
        if missing:
            raise FileValueError(
                f"{path}: missing {', '.join(missing)}; the file has: "
                f"{', '.join(sorted(file.names())) or 'nothing'}"
            )
        keys = [key for key in (*_REQUIRED, *_OPTIONAL) if file.has(key)]
        arrays = {key: file.array(key) for key in keys}
    return Episodes.from_arrays(**arrays, limit=limit, source=str(path))
