"""The forward process, its posterior, and the readings of one prediction.

A diffusion model may output the noise ``eps``, the clean sample ``x_0``, their rotation
``v = sqrt(alpha_bar) eps - sigma x_0`` (Salimans & Ho, 2022), the score, or, in a flow, the
``velocity`` dx/dt. Inside the project a model is always an
:class:`~diffreward.types.EpsFn`; ``eps_of_output`` (which ``to_eps`` applies to a schedule)
and ``from_eps`` are the only doors.
"""

from typing import Literal, get_args

from jaxtyping import Array

from diffreward.diffusion.schedule import Schedule
from diffreward.names import choose
from diffreward.types import EpsFn, Sample, Step

Prediction = Literal["eps", "x_0", "v", "score", "velocity"]
"""What a network may predict; ``velocity`` is that of a flow, d x_u / du."""


def q_sample(schedule: Schedule, x_0: Sample, t: Step, eps: Sample) -> Sample:
    """Draws x_t ~ q(x_t | x_0) = N(sqrt(alpha_bar) x_0, sigma^2 I) from given noise."""
    return schedule.sqrt_alpha_bar[t] * x_0 + schedule.sigma[t] * eps


def eps_of_output(
    prediction: Prediction,
    alpha: Array,
    sigma: Array,
    x: Sample,
    output: Sample,
    slopes: tuple[Array, Array] | None = None,
) -> Sample:
    """Reads a model output as predicted noise, for x = alpha x_0 + sigma eps.

    Args:
        prediction: kind of the output.
        alpha: signal level.
        sigma: noise level.
        x: what the model saw.
        output: what it said.
        slopes: time derivatives of alpha and sigma, which a ``velocity`` (the time
            derivative of x; eps - x_0 in a rectified flow) is made of.

    Raises:
        ValueError: for a kind that is unknown, or not a reading of the noise, or a
            velocity without slopes.
    """
    check_prediction(prediction)
    if prediction == "x_0":
        return (x - alpha * output) / sigma
    if prediction == "v":
        return alpha * output + sigma * x
    if prediction == "score":
        return -sigma * output
    if prediction == "velocity":
        if slopes is None:
            raise ValueError(_NO_SLOPES)
        d_alpha, d_sigma = slopes
        return (alpha * output - d_alpha * x) / (alpha * d_sigma - d_alpha * sigma)
    return output


def to_eps(
    schedule: Schedule,
    prediction: Prediction,
    x_t: Sample,
    t: Step,
    output: Sample,
) -> Sample:
    """Reads a model output of the named kind as predicted noise.

    Raises:
        ValueError: for a velocity, which needs a process of continuous time.
    """
    a, s = schedule.sqrt_alpha_bar[t], schedule.sigma[t]
    return eps_of_output(prediction, a, s, x_t, output)


def from_eps(
    schedule: Schedule,
    prediction: Prediction,
    x_t: Sample,
    t: Step,
    eps: Sample,
) -> Sample:
    """Writes predicted (or true) noise as the named kind of output.

    Raises:
        ValueError: for a velocity, which needs a process of continuous time.
    """
    check_prediction(prediction)
    a, s = schedule.sqrt_alpha_bar[t], schedule.sigma[t]
    if prediction == "x_0":
        return (x_t - s * eps) / a
    if prediction == "v":
        # a eps - s x_0 with x_0 eliminated. At the noisy end the difference is of order a,
        # so that rounding grows like 1 / a: 4e-5 in float32 at 32 cosine levels.
        return (eps - s * x_t) / a
    if prediction == "score":
        return -eps / s
    if prediction == "velocity":
        raise ValueError(_NO_SLOPES)
    return eps


def posterior_mean(
    schedule: Schedule,
    x_0: Sample,
    x_t: Sample,
    t: Step,
) -> Sample:
    """Mean of q(x_{t-1} | x_t, x_0); Ho et al. (2020), equation 7. Equals x_0 at t=0."""
    return schedule.posterior_x_0[t] * x_0 + schedule.posterior_x_t[t] * x_t


def ancestral_mean(eps_fn: EpsFn, schedule: Schedule, x_t: Sample, t: Step) -> Sample:
    """Mean of the ancestral step from level t under a model."""
    x_0 = from_eps(schedule, "x_0", x_t, t, eps_fn(x_t, t))
    return posterior_mean(schedule, x_0, x_t, t)


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


_NO_SLOPES = (
    "a velocity is a time derivative, which a discrete schedule does not have; declare "
    "the model's process, such as rectified_flow()"
)

NOT_A_SCORE = {
    "consistency": "it maps x_t to the end of its path, which is not E[x_0 | x_t], so "
    "it has no score; use the diffusion model it was distilled from",
}
"""Kinds of model that cannot be converted, and why."""


def check_prediction(prediction: object) -> None:
    """Accepts the kinds of prediction that are readings of the noise.

    Raises:
        ValueError: for any other, with the reason where one is known.
    """
    if isinstance(prediction, str) and (why := NOT_A_SCORE.get(prediction)):
        raise ValueError(f"a {prediction} model cannot be paired: {why}")
    choose("prediction", prediction, get_args(Prediction))
