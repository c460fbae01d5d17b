"""What an unlabelled network predicts, told from data.

Known noise is added to known samples; the right reading of the output recovers both best.
Errors count relative to what knowing mean and variance of every entry of the data would
leave, level by level: at one level errors of eps, x_0 and v differ by a factor, so no kind
has an advantage. A network that says nothing is, read as ``v``, the best guess for
normalised data; so this is the mark to beat.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffreward.diffusion.noise import NoiseProcess
from diffreward.diffusion.process import Prediction, eps_of_output
from diffreward.types import PRNGKey

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)


class Detection(NamedTuple):
    """The best reading and how sure it is."""

    prediction: str
    confidence: float
    """Share of bootstrap draws of the samples in which the same reading is best; 0 if it
    explains less than knowing mean and variance of the data."""
    explained: dict[str, float]
    """Per reading: 1 - error / error of the best guess from mean and variance."""


def detect_prediction(
    apply: Callable[[Array, Array], Array],
    process: NoiseProcess,
    x_0: Float[Array | np.ndarray, "batch ..."],
    key: PRNGKey,
    *,
    shares: Sequence[float] = SHARES,
    resamples: int = 500,
) -> Detection:
    """Tells what a network predicts from samples of what it was trained on.

    Args:
        apply: the network, (x, time) of one sample.
        process: its forward process; readings it does not allow are left out.
        x_0: samples, in the network's coordinates; a few hundred are plenty.
        key: key of the noises and of the bootstrap.
        shares: where to look, as shares of the process's angle arctan(sigma / alpha).
        resamples: bootstrap draws.

    Raises:
        ValueError: for fewer than two samples.
    """
    if len(x_0) < 2:
        raise ValueError(f"detect_prediction needs at least 2 samples, got {len(x_0)}")
    kinds: list[Prediction] = list(get_args(Prediction))
    if process.slopes is None:
        kinds.remove("velocity")
    noise_key, draw_key = jax.random.split(key)
    eps = jax.random.normal(noise_key, (len(shares), *x_0.shape))
    data = jnp.asarray(x_0)
    centre, spread = data.mean(0), data.var(0)
    times = _times(process, shares)

    def errors(time: Array, alpha: Array, sigma: Array, slopes: tuple, eps: Array) -> Array:
        """Squared errors, (batch, kinds + 1); the last knows mean and variance."""

        def one(x_0: Array, eps: Array) -> Array:
            x = alpha * x_0 + sigma * eps
            output = apply(x, time)
            guesses = [
                eps_of_output(kind, alpha, sigma, x, output, slopes or None)
                for kind in kinds
            ]
            gain = alpha * spread / (alpha**2 * spread + sigma**2)
            plain = centre + gain * (x - alpha * centre)
            guesses.append((x - alpha * plain) / sigma)
            return jnp.stack([jnp.square(g - eps).mean() for g in guesses])

        return jax.vmap(one)(data, eps)

    table = []
    for i, time in enumerate(map(np.asarray, times)):
        slopes = process.slopes(time) if process.slopes else ()
        levels = (process.alpha(time), process.sigma(time), slopes)
        levels = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), levels)
        asked = jnp.asarray(time, jnp.int32 if process.integer else jnp.float32)
        table.append(jax.jit(errors)(asked, *levels, eps[i]))
    squares = np.asarray(jnp.stack(table), np.float64)  # (levels, batch, kinds + 1)
    relative = squares / squares[..., -1:].mean(1, keepdims=True)
    per_sample = np.nan_to_num(relative.mean(0), nan=np.inf)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(draw_key)))
    rows = rng.integers(len(per_sample), size=(resamples, len(per_sample)))
    draws = per_sample[rows].mean(1)
    mean = per_sample.mean(0)
    best = int(mean[:-1].argmin())
    sure = float((draws.argmin(1) == best).mean())
    explained = {k: float(1 - mean[i] / mean[-1]) for i, k in enumerate(kinds)}
    return Detection(kinds[best], sure, explained)


def _times(process: NoiseProcess, shares: Sequence[float]) -> np.ndarray:
    """Times whose angle arctan(sigma / alpha) is the given share of the way."""
    grid = np.linspace(process.least, process.most, 2001)
    angle = np.arctan2(process.sigma(grid), process.alpha(grid))
    wanted = angle[0] + np.asarray(shares) * (angle[-1] - angle[0])
    times = np.interp(wanted, angle, grid)
    return np.round(times) if process.integer else times
