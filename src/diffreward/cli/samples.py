"""Samples from files: what the command line calls data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from diffreward.data import (
    Episodes,
    Normaliser,
    fit_gaussian,
    fit_limits,
    gather,
    make_windows,
    normalise,
    read_arrays,
    read_file,
)
from diffreward.data.episodes import fits_float32
from diffreward.data.ogbench import episodes_of_ogbench, is_ogbench
from diffreward.diffusion import ContextLayout, context_layout

LIMIT = 100_000
"""Windows of an HDF5 file that are kept, evenly spaced."""


class Samples(NamedTuple):
    """Clean samples in data units, and which of them belong together."""

    x: Float[np.ndarray, "samples ..."]
    group: Int[np.ndarray, " samples"]
    """Episode of every sample; splits never cut one."""
    source: str
    context: dict[str, np.ndarray] = {}  # noqa: RUF012 - a default nobody writes to
    """Arrays by name with a row per sample, of samples with a condition."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.x.shape[1:]

    @property
    def layout(self) -> ContextLayout | None:
        """Of samples with their contexts; reward networks see these standardised."""
        if not self.context:
            return None
        shapes = {name: rows.shape[1:] for name, rows in self.context.items()}
        return context_layout(self.shape, shapes, **_standard(self.context))

    def taken(self, rows: Any) -> Any:
        """Some of the samples as :func:`diffreward.score` takes them."""
        if not self.context:
            return self.x[rows]
        return self.x[rows], {name: value[rows] for name, value in self.context.items()}

    def within(
        self, normaliser: Normaliser | None, layout: ContextLayout | None
    ) -> Float[np.ndarray, "samples ..."]:
        """All samples in the coordinates of a pair, with their contexts if it has some."""
        x = self.x if normaliser is None else np.asarray(normalise(normaliser, self.x))
        if layout is None:
            return x
        return np.asarray(layout.normalised(layout.pack(x, self.context)))


def read_samples(
    path: str | Path, horizon: int | None = None, context: Sequence[str] = ()
) -> Samples:
    """Reads samples.

    Args:
        path: ``.npy`` with an array (samples, ...), every row its own group; ``.npz``
            with one array, or one called ``x``, and optionally ``group``; or a D4RL or
            robomimic ``.hdf5`` or OGBench ``.npz`` file (see :func:`read_file`), of which
            all windows of ``horizon`` steps of [action, observation] are taken.
        horizon: steps per sample of a file of episodes.
        context: names of the arrays of an ``.npz`` with the condition of every sample.

    Raises:
        ValueError: naming the file and what is wrong with it.
    """
    path = Path(path)
    if not path.exists() and not Path(str(path).partition("#")[0]).is_file():
        raise ValueError(f"{path} does not exist")
    if context and path.suffix != ".npz":
        raise ValueError(f"{path}: samples with a context are read from .npz files")
    if not path.exists() or path.suffix in (".hdf5", ".h5"):
        return _windows(read_file(path), horizon)
    if path.suffix not in (".npy", ".npz"):
        raise ValueError(f"{path}: samples are read from .npy, .npz and .hdf5 files")
    arrays = read_arrays(path)
    if is_ogbench(arrays):
        return _windows(episodes_of_ogbench(arrays, path), horizon)
    group = arrays.pop("group", None)
    if missing := [name for name in context if name not in arrays]:
        names = ", ".join(sorted(arrays)) or "none"
        raise ValueError(f"{path} lacks the context {missing[0]!r}; its arrays: {names}")
    told = {name: _numbers(path, name, arrays.pop(name), 1) for name in context}
    if "x" not in arrays and len(arrays) != 1:
        names = ", ".join(sorted(arrays)) or "none"
        raise ValueError(f"{path}: arrays named {names}; call the one with the samples x")
    given = arrays["x"] if "x" in arrays else next(iter(arrays.values()))
    x = _numbers(path, "", given, 2)
    for name, rows in told.items():
        if len(rows) != len(x):
            raise ValueError(f"{path}: {name} has {len(rows)} rows, x has {len(x)} samples")
    group = np.arange(len(x)) if group is None else group
    if group.shape != (len(x),):
        raise ValueError(f"{path}: group has shape {group.shape}, x has {len(x)} samples")
    return Samples(x, np.unique(group, return_inverse=True)[1], str(path), told)


def _numbers(path: Path, name: str, given: np.ndarray, axes: int) -> np.ndarray:
    """Rows of finite numbers as float32.

    Raises:
        ValueError: for anything else.
    """
    what = f"the context {name!r} is" if name else "samples are"
    if given.ndim < axes or given.size == 0 or given.dtype.kind not in "fiub":
        raise ValueError(
            f"{path}: {what} numbers shaped (samples, ...), got {given.dtype}{given.shape}"
        )
    with np.errstate(over="ignore"):
        x = given.astype(np.float32)
    if given.dtype.kind in "iu" and not fits_float32(given):
        raise ValueError(f"{path}: {given.dtype} numbers that float32 cannot hold")
    bad = ~np.isfinite(x).reshape(len(x), -1).all(1)
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"{path}: {f'{name} of ' if name else ''}sample {row} is not finite"
        )
    return x


def _standard(context: dict[str, np.ndarray]) -> dict[str, Normaliser]:
    """Mean and deviation of every entry; an entry that never varies keeps its scale."""
    found = {}
    for name, rows in context.items():
        mean, deviation = rows.mean(0), rows.std(0)
        found[name] = Normaliser(mean, np.where(deviation > 0, deviation, 1.0))
    return found


def _windows(episodes: Episodes, horizon: int | None) -> Samples:
    path = episodes.source
    if horizon is None:
        raise ValueError(f"{path} holds episodes; give --horizon to cut windows")
    if horizon < 1:
        raise ValueError(f"--horizon must be at least 1, got {horizon}")
    if episodes.lengths.max() < horizon:
        raise ValueError(
            f"{path}: the longest episode has {episodes.lengths.max()} steps, fewer than "
            f"--horizon {horizon}"
        )
    dim = episodes.actions.shape[1] + episodes.observations.shape[1]
    plain = Normaliser(np.zeros(dim, np.float32), np.ones(dim, np.float32))
    windows = make_windows(episodes, plain, horizon=horizon, pad=False)
    # The one padded window of an episode that is too short is no sample of the model's.
    whole = windows.last - windows.start + 1 >= horizon
    chosen = np.flatnonzero(whole)[:: -(-int(whole.sum()) // LIMIT)]
    x = jax.vmap(lambda i: gather(windows, i, horizon)[0])(jnp.asarray(chosen))
    group = np.searchsorted(episodes.starts, windows.start[chosen], side="right") - 1
    return Samples(np.asarray(x), group, path)


NORMALISERS = ("limits", "gaussian", "none")


def fit_normaliser(kind: str, samples: Samples) -> Normaliser | None:
    """The coordinates that models were trained in, fitted again to their data."""
    if kind == "none":
        return None
    return {"limits": fit_limits, "gaussian": fit_gaussian}[kind](samples.x)
