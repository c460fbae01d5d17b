"""Any diffusion model as noise prediction at the levels of a chosen schedule.

Three conversions, each exact for an exact model: kind of output, forward process (by equal
log-SNR) and coordinates. With the schedule's ``x_t = a x_0 + s eps`` and a model that sees
``y = r x + b`` as ``alpha y_0 + sigma eps``,

    ``alpha (r x_t / a + b) = alpha y_0 + alpha r (s / a) eps``,

so the model is asked at the time at which ``sigma / alpha = r s / a``, and its noise is
ours.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.special import expit

from diffreward.data.normaliser import Normaliser
from diffreward.diffusion.noise import NoiseProcess, match_times
from diffreward.diffusion.process import Prediction, eps_of_output
from diffreward.diffusion.schedule import Schedule, from_log_snr
from diffreward.types import EpsFn, Mask


class DiffusionModel(NamedTuple):
    """A frozen model with everything needed to ask it a question."""

    apply: Callable[[Array, Array], Array]
    """Maps (x, time) to its prediction, for one sample."""
    process: NoiseProcess
    prediction: Prediction = "eps"
    normaliser: Normaliser | None = None
    """Of the coordinates it lives in; None: those of whoever it is paired with."""


def given(apply: Callable[..., Array], condition: Any) -> Callable[[Array, Array], Array]:
    """Binds a condition (class, embedding, observation): ``apply(x, time, condition)``."""
    return lambda x, time: apply(x, time, condition)


def classifier_free(
    conditional: Callable[[Array, Array], Array],
    unconditional: Callable[[Array, Array], Array],
    weight: float,
) -> Callable[[Array, Array], Array]:
    """A model under classifier-free guidance; see :func:`guided_prediction`."""
    return lambda x, time: guided_prediction(
        unconditional(x, time), conditional(x, time), weight
    )


def guided_prediction(
    unconditional: Array, conditional: Array, weight: float | Array
) -> Array:
    """Prediction of classifier-free guidance; Ho & Salimans (2022), equation 6.

    Weight 0 is the unconditional model, 1 the conditional one. Valid for every kind of
    prediction that is affine in the noise, which all of ours are.
    """
    return unconditional + weight * (conditional - unconditional)


def to_eps_fn(
    model: DiffusionModel,
    schedule: Schedule,
    normaliser: Normaliser | None = None,
    pinned: Mask | None = None,
) -> EpsFn:
    """Noise prediction at the levels of ``schedule``, in the given coordinates.

    Args:
        model: any model.
        schedule: levels to ask it at; every one must lie in its range.
        normaliser: coordinates of the samples; by default the model's own.
        pinned: entries that x_t holds clean at every level, and that the model is shown
            clean, in its own coordinates. All others are scaled as its noised samples are.

    Raises:
        ValueError: if a level is out of range, the coordinates differ by more than one
            factor and a shift, or the prediction is no reading of the noise.
    """
    ratio, shift = relative_coordinates(normaliser, model.normaliser)
    ours = np.log(np.asarray(schedule.snr, np.float64))
    log_snr = ours - 2 * np.log(ratio)
    times = match_times(model.process, log_snr)
    # From the log-SNR, as a discrete process has it: its own levels are asked unscaled.
    a = np.sqrt(expit(ours))
    offset = None if shift is None else jnp.asarray(shift, jnp.float32)

    def at(times: np.ndarray) -> EpsFn:
        """The model at one table of times, whatever the noise in x_t."""
        alpha, sigma = model.process.alpha(times), model.process.sigma(times)
        slopes = model.process.slopes and model.process.slopes(times)
        time_table = _table(times, model.process.integer)
        factor = _table(alpha * ratio / a)
        alpha, sigma = _table(alpha), _table(sigma)
        d_tables = slopes and (_table(slopes[0]), _table(slopes[1]))

        def eps_fn(x_t: Array, t: Array) -> Array:
            x, clean = factor[t] * x_t, ratio * x_t
            if offset is not None:
                row = offset.reshape((1,) * (x.ndim - 1) + (-1,))
                x, clean = x + alpha[t] * row, clean + row
            x = x if pinned is None else jnp.where(pinned, clean, x)
            output = model.apply(x, time_table[t])
            slope = d_tables and (d_tables[0][t], d_tables[1][t])
            return eps_of_output(model.prediction, alpha[t], sigma[t], x, output, slope)

        return eps_fn

    if not model.process.integer or np.all(times == np.round(times)):
        return at(times)
    return _between(model, at, times, log_snr)


def shows_clean(
    model: DiffusionModel, schedule: Schedule, normaliser: Normaliser | None = None
) -> bool:
    """Whether clean entries of x_t reach a model clean without being pinned.

    They do where its own noised samples are scaled as ours are and stand in the same
    place: variance preserving, with our normaliser. Arguments as in :func:`to_eps_fn`.
    """
    ratio, shift = relative_coordinates(normaliser, model.normaliser)
    ours = np.log(np.asarray(schedule.snr, np.float64))
    alpha = model.process.alpha(match_times(model.process, ours - 2 * np.log(ratio)))
    return shift is None and np.allclose(alpha, np.sqrt(expit(ours)), rtol=1e-3)


def _between(
    model: DiffusionModel,
    at: Callable[[np.ndarray], EpsFn],
    times: np.ndarray,
    log_snr: np.ndarray,
) -> EpsFn:
    """Interpolates the clean prediction of two neighbouring levels, linearly in sigma^2.

    The clean prediction given x_t / a is what varies least from level to level; for data
    of unit variance it is linear in s = sigma^2 = sigmoid(-log-SNR). In general the error
    is of second order in the distance of the levels. For Gaussian data of variance
    v = k / (1 + k) the noise prediction between the levels s_0 and s_1 is off by the share
    ``k (s - s_0) (s_1 - s) / (s (s_0 + k) (s_1 + k))`` of itself, whatever v by at most
    tanh^2(log(s_1 / s_0) / 4): 0.04 at the first of 1000 linear levels, but up to 0.2 and
    more at the first of 20, so that chains of few levels want the schedule they have.
    """
    below = np.clip(np.floor(times), 0, model.process.most - 1)
    ends = [model.process.log_snr(below + i) for i in (0, 1)]
    noise, (less_noise, more_noise) = expit(-log_snr), [expit(-end) for end in ends]
    share = _table((noise - less_noise) / (more_noise - less_noise))
    less, more = at(below), at(below + 1)
    ratios = [_table(np.exp((log_snr - end) / 2)) for end in ends]

    def eps_fn(x_t: Array, t: Array) -> Array:
        # x_t / a = x_0hat + (sigma / alpha) eps in every reading, so clean predictions
        # interpolate like the products of sigma / alpha and eps; ratios are theirs to
        # ours.
        clean_side = ratios[0][t] * less(x_t, t)
        noisy_side = ratios[1][t] * more(x_t, t)
        return clean_side + share[t] * (noisy_side - clean_side)

    return eps_fn


def relative_coordinates(
    ours: Normaliser | None, theirs: Normaliser | None
) -> tuple[float, np.ndarray | None]:
    """The factor r and shift b of ``y = r x + b`` from our coordinates to theirs.

    Returns:
        r, and b or None where it is zero.

    Raises:
        ValueError: if the dimensions differ, or their scales differ by more than one
            common factor: then one noise level of ours is a different level of theirs in
            every dimension, for which no single time of the model is right.
    """
    if ours is None or theirs is None:
        return 1.0, None
    scale_a, scale_b = (np.asarray(n.scale, np.float64) for n in (ours, theirs))
    if scale_a.shape != scale_b.shape:
        raise ValueError(
            f"base has {scale_a.shape[0]} dimensions and expert {scale_b.shape[0]}"
        )
    ratios = scale_a / scale_b
    ratio = float(np.exp(np.log(ratios).mean()))
    if not np.allclose(ratios, ratio, rtol=1e-6):
        d = int(np.argmax(np.abs(np.log(ratios / np.median(ratios)))))
        raise ValueError(
            f"normaliser scale of dimension {d} is {scale_a[d]:.6g} in base and "
            f"{scale_b[d]:.6g} in expert, in other dimensions the ratio is another; only "
            "one common factor can be converted: train both with one shared normaliser"
        )
    ratio = 1.0 if abs(ratio - 1) < 1e-6 else ratio
    gap = np.asarray(ours.shift, np.float64) - np.asarray(theirs.shift, np.float64)
    shift = gap / scale_b
    return ratio, shift if np.any(shift) else None


def common_schedule(
    processes: Sequence[NoiseProcess],
    num_steps: int = 32,
    *,
    shifts: Sequence[float] | None = None,
    limit: float = 9.2,
) -> Schedule:
    """A schedule all processes cover: a cosine between their common ends.

    Levels are equally spaced in the angle arctan(sigma / alpha), as in the cosine
    schedule.

    Args:
        processes: of the models.
        num_steps: number of levels.
        shifts: what every model's coordinates take off our log-SNR, 2 log r.
        limit: log-SNRs stay within +-limit (9.2: signal levels 0.01 and 0.99995).

    Raises:
        ValueError: if the ranges do not overlap.
    """
    shifts = shifts or [0.0] * len(processes)
    ends = [
        p.log_snr(np.array([p.least, p.most], np.float64)) + shift
        for p, shift in zip(processes, shifts, strict=True)
    ]
    high = min(limit, *(e[0] for e in ends))
    low = max(-limit, *(e[1] for e in ends))
    if low >= high:
        ranges = "; ".join(
            f"{p.name}: {e[1]:.4g} to {e[0]:.4g}"
            for p, e in zip(processes, ends, strict=True)
        )
        raise ValueError(f"the models share no range of log-SNR ({ranges})")
    first, last = np.arctan(np.exp(-np.array([high, low]) / 2))
    angles = np.linspace(first, last, num_steps)
    return from_log_snr(-2 * np.log(np.tan(angles)))


def _table(values: np.ndarray, integer: bool = False) -> Array:
    if integer:
        return jnp.asarray(np.round(values), jnp.int32)
    return jnp.asarray(values, jnp.float32)
