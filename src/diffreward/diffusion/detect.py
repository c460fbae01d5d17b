"""What an unlabelled network predicts, and how it is to be asked, told from data.

Known noise is added to known samples; the right reading of the output recovers both best.
Errors count relative to what knowing mean and variance of every entry of the data would
leave, level by level: at one level errors of eps, x_0 and v differ by a factor, so no kind
has an advantage. A network that says nothing is, read as ``v``, the best guess for
normalised data; so this is the mark to beat.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffreward.diffusion.model import DiffusionModel
from diffreward.diffusion.noise import NoiseProcess
from diffreward.diffusion.process import Prediction, eps_of_output
from diffreward.types import Mask, PRNGKey

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
RESAMPLES = 500
AS_DECLARED = "as declared"
"""The way of asking that a model declares."""
AS_SHARE = "with time / number of levels"
MARGIN, SURE = 0.98, 0.95
"""Share of the unexplained that another way of asking may leave, and in how many draws."""


class Detection(NamedTuple):
    """The best reading and how sure it is."""

    prediction: str
    confidence: float
    """Share of bootstrap draws of the samples in which the same reading is best; 0 if it
    explains less than knowing mean and variance of the data."""
    explained: dict[str, float]
    """Per reading: 1 - error / error of the best guess from mean and variance."""


class Convention(NamedTuple):
    """The way of asking a model that explains the data best, by a margin."""

    best: str
    """``AS_DECLARED`` as long as no other leaves a fiftieth less unexplained."""
    confidence: float
    """Share of bootstrap draws of the samples that say so."""
    explained: dict[str, float]
    """Per way of asking, as of a :class:`Detection`."""


def detect_prediction(
    apply: Callable[..., Array],
    process: NoiseProcess,
    x_0: Float[Array | np.ndarray, "batch ..."],
    key: PRNGKey,
    *,
    contexts: Any = None,
    pinned: Mask | None = None,
    shares: Sequence[float] = SHARES,
    resamples: int = RESAMPLES,
) -> Detection:
    """Tells what a network predicts from samples of what it was trained on.

    Args:
        apply: the network, (x, time) of one sample; (x, time, context) with contexts.
        process: its forward process; readings it does not allow are left out.
        x_0: samples, in the network's coordinates; a few hundred are plenty.
        key: key of the noises and of the bootstrap.
        contexts: any tree of arrays with a row per sample.
        pinned: entries of a sample that the network is shown clean; they do not count.
        shares: where to look, as shares of the process's angle arctan(sigma / alpha).
        resamples: bootstrap draws.

    Raises:
        ValueError: for fewer than two samples.
    """
    kinds: list[Prediction] = list(get_args(Prediction))
    if process.slopes is None:
        kinds.remove("velocity")
    errors = _errors(apply, process, kinds, x_0, key, contexts, pinned, shares)
    mean = errors.mean(0)
    best = int(mean[:-1].argmin())
    sure = float((_draws(errors, key, resamples).argmin(1) == best).mean())
    explained = (1 - mean[:-1] / mean[-1]).tolist()
    return Detection(kinds[best], sure, dict(zip(kinds, explained, strict=True)))


def detect_convention(
    model: DiffusionModel | Callable[[Any], DiffusionModel],
    x_0: Float[Array | np.ndarray, "batch ..."],
    key: PRNGKey,
    *,
    contexts: Any = None,
    pinned: Mask | None = None,
    shares: Sequence[float] = SHARES,
    resamples: int = RESAMPLES,
) -> Convention:
    """Holds a declared model against usual mistakes in declaring one.

    Time off by one, reversed, as a share of the chain or a thousand times as large, and
    samples of [-1, 1] for a network of [0, 1] or the reverse. Where another way of asking
    explains the data better, beyond chance and by a margin, the declaration is wrong. (The
    margin spares imperfect networks; a time off by one of a thousand stays below it.)

    Args:
        model: the model; with contexts, a function of one.
        x_0: samples, in the model's coordinates; a few hundred are plenty.
        key: key of the noises and of the bootstrap.
        contexts: arrays by name with a row per sample.
        pinned: entries of a sample that the model is shown clean; they do not count.
        shares: as of :func:`detect_prediction`.
        resamples: bootstrap draws.

    Raises:
        ValueError: for fewer than two samples.
    """
    if contexts is None:
        first: Any = model
    else:
        first = model(jax.tree.map(lambda rows: rows[0], contexts))  # pyright: ignore
    process, data = first.process, jnp.asarray(x_0)
    table = {}
    for name, (change, place) in _ways(process).items():

        def apply(x: Array, time: Array, *context: Any, change: Any = change) -> Array:
            told: Any = model(*context) if context else model  # pyright: ignore
            return told.apply(x, change(time))

        asked = (apply, process, [first.prediction], place(data), key, contexts)
        try:
            table[name] = _errors(*asked, pinned, shares)[:, 0]
        except (TypeError, ValueError):
            if name != AS_SHARE:
                raise
            # A network of whole times need not answer to a share of them.
    errors = np.stack([*table.values()], 1)
    draws = _draws(errors, key, resamples)
    explained = dict(zip(table, (1 - errors.mean(0)).tolist(), strict=True))
    bar = MARGIN * draws[:, :1]  # AS_DECLARED comes first
    best = int(errors.mean(0).argmin())
    ahead = draws[:, best] < bar[:, 0]
    sure = float(ahead.mean())
    if sure < SURE:
        return Convention(AS_DECLARED, float((draws >= bar).all(1).mean()), explained)
    return Convention([*table][best], sure, explained)


def _ways(process: NoiseProcess) -> dict[str, tuple[Callable, Callable]]:
    """Changes of time and of samples, by what they are called."""
    least, most = process.least, process.most
    same = lambda value: value
    changes: dict[str, Callable] = {
        AS_DECLARED: same,
        "with time reversed": lambda time: jnp.asarray(least + most, time.dtype) - time,
    }
    if process.schedule is not None:
        changes |= {
            "with time + 1": lambda time: time + 1,
            "with time - 1": lambda time: jnp.maximum(time - 1, 0),
            AS_SHARE: lambda time: jnp.asarray(time, jnp.float32) / (most + 1),
        }
    else:
        changes["with 1000 times the time"] = lambda time: 1000 * time
    ways = {name: (change, same) for name, change in changes.items()}
    return ways | {
        "on (sample + 1) / 2": (same, lambda x: (x + 1) / 2),
        "on 2 sample - 1": (same, lambda x: 2 * x - 1),
    }


def _errors(
    apply: Callable[..., Array],
    process: NoiseProcess,
    kinds: Sequence[Prediction],
    x_0: Float[Array | np.ndarray, "batch ..."],
    key: PRNGKey,
    contexts: Any,
    pinned: Mask | None,
    shares: Sequence[float],
) -> Float[np.ndarray, "batch kinds_and_data"]:
    """Squared errors per sample and reading, relative to what mean and variance leave.

    The last column is that of knowing mean and variance.
    """
    if len(x_0) < 2:
        raise ValueError(
            f"telling a model from data needs at least 2 samples, got {len(x_0)}"
        )
    noise_key, _ = jax.random.split(key)
    eps = jax.random.normal(noise_key, (len(shares), *x_0.shape))
    data = jnp.asarray(x_0)
    centre, spread = data.mean(0), data.var(0)
    times = _times(process, shares)
    free = jnp.ones(data.shape[1:], bool) if pinned is None else ~jnp.asarray(pinned)
    count = jnp.float32(max(int(free.sum()), 1))

    def errors(time: Array, alpha: Array, sigma: Array, slopes: tuple, eps: Array) -> Array:
        """Squared errors, (batch, kinds + 1); the last knows mean and variance."""

        def one(x_0: Array, eps: Array, context: Any) -> Array:
            x = jnp.where(free, alpha * x_0 + sigma * eps, x_0)
            output = apply(x, time) if contexts is None else apply(x, time, context)
            guesses = [
                eps_of_output(kind, alpha, sigma, x, output, slopes or None)
                for kind in kinds
            ]
            gain = alpha * spread / (alpha**2 * spread + sigma**2)
            plain = centre + gain * (x - alpha * centre)
            guesses.append((x - alpha * plain) / sigma)
            wrong = [jnp.where(free, jnp.square(g - eps), 0).sum() for g in guesses]
            return jnp.stack(wrong) / count

        return jax.vmap(one)(data, eps, contexts)

    table = []
    for i, time in enumerate(map(np.asarray, times)):
        slopes = process.slopes(time) if process.slopes else ()
        levels = (process.alpha(time), process.sigma(time), slopes)
        levels = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), levels)
        asked = jnp.asarray(time, jnp.int32 if process.integer else jnp.float32)
        table.append(jax.jit(errors)(asked, *levels, eps[i]))
    squares = np.asarray(jnp.stack(table), np.float64)  # (levels, batch, kinds + 1)
    relative = squares / squares[..., -1:].mean(1, keepdims=True)
    return np.nan_to_num(relative.mean(0), nan=np.inf)


def _draws(
    errors: Float[np.ndarray, "batch columns"], key: PRNGKey, resamples: int
) -> Float[np.ndarray, "resamples columns"]:
    """Mean errors of bootstrap draws of the samples."""
    _, draw_key = jax.random.split(key)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(draw_key)))
    rows = rng.integers(len(errors), size=(resamples, len(errors)))
    return errors[rows].mean(1)


def _times(process: NoiseProcess, shares: Sequence[float]) -> np.ndarray:
    """Times whose angle arctan(sigma / alpha) is the given share of the way."""
    grid = np.linspace(process.least, process.most, 2001)
    angle = np.arctan2(process.sigma(grid), process.alpha(grid))
    wanted = angle[0] + np.asarray(shares) * (angle[-1] - angle[0])
    times = np.interp(wanted, angle, grid)
    return np.round(times) if process.integer else times
