"""A pair of diffusion models in one coordinate system."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array

from diffreward.data.normaliser import Normaliser
from diffreward.diffusion import Schedule, from_eps, posterior_mean
from diffreward.types import EpsFn, Sample, Step


class Diffusion(NamedTuple):
    """A frozen diffusion model: its noise prediction and the space it lives in."""

    eps_fn: EpsFn
    schedule: Schedule
    normaliser: Normaliser


class Pair(NamedTuple):
    """Base and expert noise predictions over the same coordinates and levels."""

    base: EpsFn
    expert: EpsFn
    schedule: Schedule


def make_pair(base: Diffusion, expert: Diffusion) -> Pair:
    """Puts two models into the base's coordinates, exactly or not at all.

    Coordinates that differ by a shift are converted: if the expert sees
    ``y = x + b``, then ``y_t = x_t + sqrt(alpha_bar_t) b`` with the same noise. A
    difference of scale changes the noise level per dimension, for which no single
    level of the expert is right, so it is refused.

    Raises:
        ValueError: if schedules or scales differ; the message has both values.
    """
    if base.schedule.num_steps != expert.schedule.num_steps:
        raise ValueError(
            f"base has {base.schedule.num_steps} noise levels and expert "
            f"{expert.schedule.num_steps}; train both on one schedule"
        )
    gap = np.abs(
        np.asarray(base.schedule.alpha_bar) - np.asarray(expert.schedule.alpha_bar)
    )
    if gap.max() > 1e-6:
        t = int(gap.argmax())
        raise ValueError(
            f"schedules differ: alpha_bar[{t}] is {base.schedule.alpha_bar[t]:.6g} in "
            f"base and {expert.schedule.alpha_bar[t]:.6g} in expert"
        )
    scale_b = np.asarray(base.normaliser.scale)
    scale_e = np.asarray(expert.normaliser.scale)
    if scale_b.shape != scale_e.shape:
        raise ValueError(
            f"base has {scale_b.shape[0]} dimensions and expert {scale_e.shape[0]}"
        )
    if not np.allclose(scale_b, scale_e, rtol=1e-6):
        d = int(np.argmax(np.abs(scale_b / scale_e - 1)))
        raise ValueError(
            f"normaliser scale of dimension {d} is {scale_b[d]:.6g} in base and "
            f"{scale_e[d]:.6g} in expert; train both models with one shared normaliser"
        )
    shift = (base.normaliser.shift - expert.normaliser.shift) / scale_b

    if not np.any(np.asarray(shift)):
        return Pair(base.eps_fn, expert.eps_fn, base.schedule)

    def shifted(x_t: Array, t: Array) -> Array:
        return expert.eps_fn(x_t + base.schedule.sqrt_alpha_bar[t] * shift, t)

    return Pair(base.eps_fn, shifted, base.schedule)


def relative_score(pair: Pair, x_t: Sample, t: Step) -> Sample:
    """Score of the expert minus score of the base, (eps_base - eps_expert) / sigma."""
    return (pair.base(x_t, t) - pair.expert(x_t, t)) / pair.schedule.sigma[t]


def posterior_means(pair: Pair, x_t: Sample, t: Step) -> tuple[Sample, Sample]:
    """Means of the next ancestral step under base and expert."""

    def mean(eps_fn: EpsFn) -> Array:
        x_0 = from_eps(pair.schedule, "x_0", x_t, t, eps_fn(x_t, t))
        return posterior_mean(pair.schedule, x_0, x_t, t)

    return mean(pair.base), mean(pair.expert)
