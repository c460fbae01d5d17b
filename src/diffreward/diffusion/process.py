"""The forward process, its posterior, and the four readings of one prediction.

A diffusion model may output the noise ``eps``, the clean sample ``x_0``, the velocity
``v = sqrt(alpha_bar) eps - sigma x_0`` (Salimans & Ho, 2022) or the score. Inside the
project a model is always an :class:`~diffreward.types.EpsFn`; ``to_eps`` and ``from_eps``
are the only doors.
"""

from typing import Literal, get_args

from jaxtyping import Array

from diffreward.diffusion.schedule import Schedule
from diffreward.types import EpsFn, Sample, Step

Prediction = Literal["eps", "x_0", "v", "score"]


def q_sample(schedule: Schedule, x_0: Sample, t: Step, eps: Sample) -> Sample:
    """Draws x_t ~ q(x_t | x_0) = N(sqrt(alpha_bar) x_0, sigma^2 I) from given noise."""
    return schedule.sqrt_alpha_bar[t] * x_0 + schedule.sigma[t] * eps


def to_eps(
    schedule: Schedule,
    prediction: Prediction,
    x_t: Sample,
    t: Step,
    output: Sample,
) -> Sample:
    """Reads a model output of the named kind as predicted noise."""
    a, s = schedule.sqrt_alpha_bar[t], schedule.sigma[t]
    if prediction == "eps":
        return output
    if prediction == "x_0":
        return (x_t - a * output) / s
    if prediction == "v":
        return a * output + s * x_t
    if prediction == "score":
        return -s * output
    raise ValueError(_unknown_prediction(prediction))


def from_eps(
    schedule: Schedule,
    prediction: Prediction,
    x_t: Sample,
    t: Step,
    eps: Sample,
) -> Sample:
    """Writes predicted (or true) noise as the named kind of output."""
    a, s = schedule.sqrt_alpha_bar[t], schedule.sigma[t]
    if prediction == "eps":
        return eps
    if prediction == "x_0":
        return (x_t - s * eps) / a
    if prediction == "v":
        # a eps - s x_0 with x_0 eliminated; no cancellation at either end.
        return (eps - s * x_t) / a
    if prediction == "score":
        return -eps / s
    raise ValueError(_unknown_prediction(prediction))


def posterior_mean(
    schedule: Schedule,
    x_0: Sample,
    x_t: Sample,
    t: Step,
) -> Sample:
    """Mean of q(x_{t-1} | x_t, x_0); Ho et al. (2020), equation 7. Equals x_0 at t=0."""
    return schedule.posterior_x_0[t] * x_0 + schedule.posterior_x_t[t] * x_t


def eps_of_mean(
    schedule: Schedule,
    mean: Sample,
    x_t: Sample,
    t: Step,
) -> Sample:
    """The noise prediction under which an ancestral step has the given mean."""
    x_0 = (mean - schedule.posterior_x_t[t] * x_t) / schedule.posterior_x_0[t]
    return to_eps(schedule, "x_0", x_t, t, x_0)


def clip_x_0(eps_fn: EpsFn, schedule: Schedule, limit: float) -> EpsFn:
    """Clamps the implied clean sample to ``[-limit, limit]`` (``clip_denoised``)."""

    def clipped(x_t: Array, t: Array) -> Array:
        x_0 = from_eps(schedule, "x_0", x_t, t, eps_fn(x_t, t)).clip(-limit, limit)
        return to_eps(schedule, "x_0", x_t, t, x_0)

    return clipped


def _unknown_prediction(prediction: object) -> str:
    names = ", ".join(get_args(Prediction))
    return f"unknown prediction {prediction!r}; use one of: {names}"
