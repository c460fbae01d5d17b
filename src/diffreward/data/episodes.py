"""Episodes as flat arrays: the one format every data source is turned into."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike


class Episodes(NamedTuple):
    """Rows of all episodes, end to end; ``source`` says where they came from.

    Episode ``e`` is the rows ``starts[e] : starts[e] + lengths[e]``. A terminal ends
    the task, a timeout only the recording.
    """

    observations: Float[np.ndarray, "rows obs"]
    actions: Float[np.ndarray, "rows act"]
    rewards: Float[np.ndarray, " rows"]
    terminals: Bool[np.ndarray, " rows"]
    timeouts: Bool[np.ndarray, " rows"]
    starts: Int[np.ndarray, " episodes"]
    lengths: Int[np.ndarray, " episodes"]
    source: str

    @classmethod
    def from_arrays(
        cls,
        observations: ArrayLike,
        actions: ArrayLike,
        *,
        rewards: ArrayLike | None = None,
        terminals: ArrayLike | None = None,
        timeouts: ArrayLike | None = None,
        limit: int | None = None,
        source: str = "arrays",
    ) -> "Episodes":
        """Checks flat arrays and cuts them where a terminal or timeout is set.

        Numbers may have any type that float32 holds without loss, flags be bool or 0 and
        1 of any type; (rows, 1) columns are accepted. The last row always ends an
        episode. Missing rewards are zero.

        Args:
            observations: of every row.
            actions: of every row.
            rewards: of every row.
            terminals: rows in which the task ended.
            timeouts: rows in which only the recording ended.
            limit: steps after which the environment ends an episode. Where timeouts are
                missing, episodes are cut there.
            source: for messages.

        Raises:
            ValueError: data that is empty, not finite, of the wrong rank, length or
                type, or whose episode ends are ambiguous; the message names the
                source, the key and the row.
        """
        observations = _numbers(source, "observations", observations, ndim=2)
        rows = len(observations)
        if rows == 0:
            raise ValueError(f"{source}: observations: no rows")
        actions = _numbers(source, "actions", actions, ndim=2, rows=rows)
        if rewards is None:
            rewards = np.zeros(rows, np.float32)
        rewards = _numbers(source, "rewards", rewards, ndim=1, rows=rows)
        terminal = _flags(source, "terminals", terminals, rows)
        timeout = _flags(source, "timeouts", timeouts, rows)
        if timeouts is None and limit is None:
            raise ValueError(
                f"{source}: timeouts: missing, so episodes that were cut off cannot be "
                "told from one another; add timeouts (all False if every episode ends in "
                "a terminal)"
            )
        if timeouts is None:
            timeout = _cut_at(terminal, limit or 0)
        if not terminal[-1]:
            timeout[-1] = True
        ends = np.flatnonzero(terminal | timeout) + 1
        starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
        lengths = ends - starts
        if limit is not None and lengths.max() > limit:
            raise ValueError(
                f"{source}: timeouts: an episode of {lengths.max()} steps from row "
                f"{starts[lengths.argmax()]}, but the environment ends them after {limit}"
            )
        return cls(
            observations, actions, rewards, terminal, timeout, starts, lengths, source
        )


_WHOLE = 2**24
_PER_ROW = ("observations", "actions", "rewards", "terminals", "timeouts")


def transitions(episodes: Episodes) -> Float[np.ndarray, "rows dim"]:
    """Rows of ``[action, observation]``."""
    return np.concatenate([episodes.actions, episodes.observations], axis=1)


def select(episodes: Episodes, indices: Int[np.ndarray, " chosen"]) -> Episodes:
    """The chosen episodes, in the order given."""
    if len(indices) == 0:
        raise ValueError(f"{episodes.source}: select: no episode was chosen")
    lengths = episodes.lengths[indices]
    starts = np.cumsum(lengths) - lengths
    within = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    rows = np.repeat(episodes.starts[indices], lengths) + within
    columns = {name: getattr(episodes, name)[rows] for name in _PER_ROW}
    return episodes._replace(**columns, starts=starts, lengths=lengths)


def first_transitions(episodes: Episodes, limit: int) -> Episodes:
    """The first whole episodes of at least ``limit`` rows together; 0 means all."""
    if not limit:
        return episodes
    ends = np.cumsum(episodes.lengths)
    count = int(np.searchsorted(ends, limit)) + 1
    return select(episodes, np.arange(min(count, len(ends))))


def episode_returns(episodes: Episodes) -> Float[np.ndarray, " episodes"]:
    """Undiscounted sums of rewards."""
    return np.add.reduceat(episodes.rewards.astype(np.float64), episodes.starts)


def concatenate(parts: Sequence[Episodes]) -> Episodes:
    """All episodes of all parts.

    Raises:
        ValueError: there are no parts, or their dimensions differ.
    """
    if not parts:
        raise ValueError("concatenate: no episodes given")
    first = parts[0]
    for part in parts:
        for key in ("observations", "actions"):
            want, got = getattr(first, key).shape[1], getattr(part, key).shape[1]
            if got != want:
                raise ValueError(
                    f"{part.source}: {key}: {got} columns, but {first.source} has {want}"
                )
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in _PER_ROW
    }
    lengths = np.concatenate([part.lengths for part in parts])
    others = len({part.source for part in parts}) - 1
    source = f"{first.source} and {others} more" if others else first.source
    starts = np.cumsum(lengths) - lengths
    return Episodes(**columns, starts=starts, lengths=lengths, source=source)


def fits_float32(whole: np.ndarray) -> bool:
    """Whether float32 holds every whole number of this size: up to 2^24."""
    return not ((whole > _WHOLE) | (whole < -_WHOLE)).any()


def _numbers(
    source: str, key: str, value: Any, *, ndim: int, rows: int | None = None
) -> np.ndarray:
    x = np.asarray(value)
    if x.dtype.kind not in "fiub":
        raise ValueError(f"{source}: {key}: dtype {x.dtype}, expected float32")
    given = x = _shaped(source, key, x, ndim, rows)
    # Checked after the cast: a float64 beyond float32 becomes inf.
    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
    if given.dtype.kind != "f" and not fits_float32(given):
        raise ValueError(
            f"{source}: {key}: {given.dtype} numbers that float32 cannot hold; rescale them"
        )
    bad = np.flatnonzero(~np.isfinite(x).all(axis=tuple(range(1, ndim))))
    if len(bad):
        raise ValueError(
            f"{source}: {key}: row {bad[0]} holds NaN or infinity "
            f"({len(bad)} such rows); remove or repair them"
        )
    return x


def _flags(source: str, key: str, value: Any, rows: int) -> np.ndarray:
    if value is None:
        return np.zeros(rows, bool)
    x = np.asarray(value)
    if x.dtype.kind not in "biuf":
        raise ValueError(f"{source}: {key}: dtype {x.dtype}, expected bool")
    x = _shaped(source, key, x, 1, rows)
    bad = np.flatnonzero((x != 0) & (x != 1))
    if len(bad):
        raise ValueError(f"{source}: {key}: row {bad[0]} is {x[bad[0]]}, expected 0 or 1")
    return x.astype(bool)


def _cut_at(terminal: np.ndarray, limit: int) -> np.ndarray:
    """Timeouts of episodes that go on for ``limit`` steps without a terminal."""
    timeout = np.zeros(len(terminal), bool)
    starts = np.flatnonzero(np.concatenate([[True], terminal[:-1]]))
    for start, end in zip(starts, [*starts[1:], len(terminal)], strict=True):
        timeout[start + limit - 1 : end : limit] = True
    return timeout & ~terminal


def _shaped(
    source: str, key: str, x: np.ndarray, ndim: int, rows: int | None
) -> np.ndarray:
    if ndim == 1 and x.ndim == 2 and x.shape[1] == 1:
        x = x[:, 0]
    length = "rows" if rows is None else rows
    expected = f"({length}, dim)" if ndim == 2 else f"({length},)"
    wrong_rows = rows is not None and x.shape[:1] != (rows,)
    if x.ndim != ndim or wrong_rows or (ndim == 2 and x.shape[1] == 0):
        raise ValueError(f"{source}: {key}: shape {x.shape}, expected {expected}")
    return x


def with_returns(episodes: Episodes, discount: float) -> Episodes:
    """The episodes with the discounted return to go as one more observation."""
    to_go = np.zeros(len(episodes.rewards), np.float64)
    for start, length in zip(episodes.starts, episodes.lengths, strict=True):
        value = 0.0
        for row in range(start + length - 1, start - 1, -1):
            value = episodes.rewards[row] + discount * value
            to_go[row] = value
    column = to_go[:, None].astype(np.float32)
    observations = np.concatenate([episodes.observations, column], axis=1)
    return episodes._replace(observations=observations)
