"""Samples from files: what the command line calls data."""

from pathlib import Path
from typing import NamedTuple

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
    read_arrays,
    read_hdf5,
)
from diffreward.data.episodes import fits_float32
from diffreward.data.ogbench import episodes_of_ogbench, is_ogbench

LIMIT = 100_000
"""Windows of an HDF5 file that are kept, evenly spaced."""


class Samples(NamedTuple):
    """Clean samples in data units, and which of them belong together."""

    x: Float[np.ndarray, "samples ..."]
    group: Int[np.ndarray, " samples"]
    """Episode of every sample; splits never cut one."""
    source: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.x.shape[1:]


def read_samples(path: str | Path, horizon: int | None = None) -> Samples:
    """Reads samples.

    Args:
        path: ``.npy`` with an array (samples, ...), every row its own group; ``.npz``
            with one array, or one called ``x``, and optionally ``group``; or a D4RL
            ``.hdf5`` or OGBench ``.npz`` file, of which all windows of ``horizon`` steps
            of [action, observation] are taken.
        horizon: steps per sample of a file of episodes.

    Raises:
        ValueError: naming the file and what is wrong with it.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    if path.suffix in (".hdf5", ".h5"):
        return _windows(read_hdf5(path), horizon)
    if path.suffix not in (".npy", ".npz"):
        raise ValueError(f"{path}: samples are read from .npy, .npz and .hdf5 files")
    arrays = read_arrays(path)
    if is_ogbench(arrays):
        return _windows(episodes_of_ogbench(arrays, path), horizon)
    group = arrays.pop("group", None)
    if "x" not in arrays and len(arrays) != 1:
        names = ", ".join(sorted(arrays)) or "none"
        raise ValueError(f"{path}: arrays named {names}; call the one with the samples x")
    given = arrays["x"] if "x" in arrays else next(iter(arrays.values()))
    if given.ndim < 2 or given.size == 0 or given.dtype.kind not in "fiub":
        raise ValueError(
            f"{path}: samples are numbers shaped (samples, ...), got "
            f"{given.dtype}{given.shape}"
        )
    with np.errstate(over="ignore"):
        x = given.astype(np.float32)
    if given.dtype.kind in "iu" and not fits_float32(given):
        raise ValueError(f"{path}: {given.dtype} numbers that float32 cannot hold")
    bad = ~np.isfinite(x).reshape(len(x), -1).all(1)
    if bad.any():
        raise ValueError(f"{path}: sample {int(np.argmax(bad))} is not finite")
    group = np.arange(len(x)) if group is None else group
    if group.shape != (len(x),):
        raise ValueError(f"{path}: group has shape {group.shape}, x has {len(x)} samples")
    return Samples(x, np.unique(group, return_inverse=True)[1], str(path))


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
