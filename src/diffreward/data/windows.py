"""Fixed-length windows of episodes as indices into one array of rows.

Nothing is copied per window: a window is a first row and the last row of its episode,
so a data set costs its rows plus eight bytes per window.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from diffreward.data.episodes import Episodes, transitions
from diffreward.data.normaliser import Normaliser, normalise
from diffreward.types import Traj


class Windows(NamedTuple):
    """Windows over normalised transitions ``[action, observation]``.

    A member of a population samples the windows ``offset : offset + count``; all
    members share the other arrays (see ``MEMBER_AXES``).
    """

    rows: Float[Array | np.ndarray, "rows dim"]
    start: Int[Array | np.ndarray, " windows"]
    """First row of each window."""
    last: Int[Array | np.ndarray, " windows"]
    """Last row of the episode that the window belongs to."""
    pad: Float[Array | np.ndarray, " act"]
    """The normalised zero action, which fills the rows after the end."""
    stride: Int[Array | np.ndarray, ""]
    """Rows between two consecutive steps of a window."""
    offset: Int[Array | np.ndarray, " *members"]
    count: Int[Array | np.ndarray, " *members"]  # pyright: ignore[reportIncompatibleMethodOverride]


MEMBER_AXES = Windows(None, None, None, None, None, 0, 0)  # pyright: ignore[reportArgumentType]
"""``in_axes`` of ``jax.vmap`` for windows from ``stack_windows``."""


def make_windows(
    episodes: Episodes,
    normaliser: Normaliser,
    *,
    horizon: int,
    pad: bool,
    stride_between_rows: int = 1,
    balance: Literal["window", "episode"] = "window",
) -> Windows:
    """Indexes the windows of ``horizon`` steps; arrays stay on the host.

    Args:
        episodes: source of the rows.
        normaliser: applied to ``[action, observation]``.
        horizon: steps per window.
        pad: True starts a window at every row but the last of an episode, padded
            where the episode ends; False keeps windows that lie inside an episode,
            and one padded window for an episode that is too short.
        stride_between_rows: rows between two steps of a window.
        balance: "window" weighs all windows alike; "episode" repeats the windows of
            short episodes so that episodes weigh about the same, as in the paper.
    """
    if horizon < 1 or stride_between_rows < 1:
        raise ValueError(
            f"windows: horizon {horizon} and stride {stride_between_rows} must be >= 1"
        )
    rows = normalise(normaliser, transitions(episodes))
    lost = 1 if pad else (horizon - 1) * stride_between_rows
    counts = np.maximum(episodes.lengths - lost, 1)
    repeats = counts.max() // counts if balance == "episode" else np.ones_like(counts)
    totals = counts * repeats
    episode = np.repeat(np.arange(len(counts)), totals)
    within = np.arange(totals.sum()) - np.repeat(np.cumsum(totals) - totals, totals)
    last = episodes.starts + episodes.lengths - 1
    if max(len(rows), len(episode)) > np.iinfo(np.int32).max:
        raise ValueError(
            f"{episodes.source}: windows: {len(rows)} rows and {len(episode)} windows "
            "exceed 32-bit indices; split the data"
        )
    act_dim = episodes.actions.shape[1]
    return Windows(
        rows=rows,
        start=(episodes.starts[episode] + within % counts[episode]).astype(np.int32),
        last=last[episode].astype(np.int32),
        pad=normalise(normaliser, np.zeros_like(rows[0]))[:act_dim],
        stride=np.asarray(stride_between_rows, np.int32),
        offset=np.asarray(0, np.int32),
        count=np.asarray(len(episode), np.int32),
    )


def gather(
    windows: Windows, index: Int[Array, ""], horizon: int
) -> tuple[Traj, Bool[Array, " horizon"]]:
    """Window ``index`` of a member, and which of its rows are real.

    After the end of the episode the last observation repeats and the action is zero.
    """
    window = windows.offset + index
    last = jnp.asarray(windows.last)[window]
    row = jnp.asarray(windows.start)[window] + windows.stride * jnp.arange(horizon)
    valid = row <= last
    x_0 = jnp.asarray(windows.rows)[jnp.minimum(row, last)]
    act_dim = windows.pad.shape[0]
    action = jnp.where(valid[:, None], x_0[:, :act_dim], windows.pad[None])
    return jnp.concatenate([action, x_0[:, act_dim:]], axis=1), valid


def under_first_observation(windows: Windows, horizon: int) -> Windows:
    """The same windows with the first observation in all their rows.

    Samples of a diffusion policy: actions under what is observed, not what comes of them.
    Rows after the end of an episode stay the same zero actions. Every window has rows of
    its own, ``horizon`` times as many as there are windows.

    Args:
        windows: of one member.
        horizon: steps per window.

    Raises:
        ValueError: for more rows than indices reach.
    """
    if len(windows.start) * horizon > np.iinfo(np.int32).max:
        raise ValueError(
            f"under_first_observation: {len(windows.start)} windows of {horizon} steps are "
            "more rows than 32-bit indices reach; use less data"
        )
    step = windows.stride * np.arange(horizon)
    row = windows.start[:, None] + step[None]
    valid = row <= windows.last[:, None]
    act_dim, rows = len(windows.pad), np.asarray(windows.rows)
    own = rows[np.minimum(row, windows.last[:, None])]
    own[:, :, act_dim:] = own[:, :1, act_dim:]
    start = np.arange(len(row), dtype=np.int32) * np.int32(horizon)
    return windows._replace(
        rows=own.reshape(-1, rows.shape[1]),
        start=start,
        last=(start + valid.sum(1) - 1).astype(np.int32),
        stride=np.asarray(1, np.int32),
    )


def stack_windows(members: Sequence[Windows]) -> Windows:
    """One ``Windows`` for a population; ``offset`` and ``count`` become (members,).

    Raises:
        ValueError: no members, or they differ in normalised zero action, dimension or
            stride, that is, were not made with one normaliser.
    """
    if not members:
        raise ValueError("stack_windows: no members given")
    first = members[0]
    for i, member in enumerate(members):
        same_dim = member.rows.shape[1] == first.rows.shape[1]
        same_pad = np.array_equal(member.pad, first.pad)
        if not (same_dim and same_pad and member.stride == first.stride):
            raise ValueError(
                f"stack_windows: member {i} differs from member 0 in dimension, "
                "normaliser or stride; make all windows with the same ones"
            )
    counts = np.array([len(member.start) for member in members], np.int32)
    before = np.cumsum([0] + [len(member.rows) for member in members])
    if max(before[-1], counts.sum(dtype=np.int64)) > np.iinfo(np.int32).max:
        raise ValueError("stack_windows: more rows or windows than 32-bit indices reach")

    def shifted(name: str) -> np.ndarray:
        arrays = [getattr(m, name) + n for m, n in zip(members, before, strict=False)]
        return np.concatenate(arrays).astype(np.int32)

    return Windows(
        rows=np.concatenate([member.rows for member in members]),
        start=shifted("start"),
        last=shifted("last"),
        pad=first.pad,
        stride=first.stride,
        offset=np.cumsum(counts, dtype=np.int32) - counts,
        count=counts,
    )
