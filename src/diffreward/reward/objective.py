"""What a reward is aligned with: a record per objective, all that its name stands for."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax.numpy as jnp

from diffreward.diffusion import Schedule
from diffreward.reward.alignment import Alignment, align_means, align_scores
from diffreward.reward.pair import Pair
from diffreward.types import Sample, Scalar, Step


class Objective(NamedTuple):
    """Target, weight and factor of a reward, and how it is trained and used with them.

    Another one is an entry of ``OBJECTIVES``, or a record of one's own.
    """

    name: str
    align: Callable[[Pair, Sample, Step], Alignment]
    """Where the reward is differentiated, its target and its weight."""
    scale: Callable[[Schedule, Step], Scalar]
    """Factor by which a network of order one is multiplied to become the reward."""
    conditioned: bool
    """Whether pinned entries are shown clean, and left out of the loss with padding."""
    sums_windows: bool
    """Whether a reward of windows is their sum, as of log densities; else their mean."""
    absorbs_variance: bool
    """Whether the gradient has the variance of a denoising step in it already, so that
    guidance does not multiply it with that."""
    activation: Literal["mish", "silu", "leaky_relu"]
    """Of convolutional and multi-layer reward networks. Piecewise linear ones pass no
    second derivative on, so their time path is not trained."""


def score_scale(schedule: Schedule, t: Step) -> Scalar:
    """sqrt(alpha_bar) / sigma^2: makes a network's gradient a difference of clean means.

    The relative score is this factor times the difference of the two clean predictions;
    with it the network's own gradient is that difference. Towards low noise the
    difference is of order one for laws of disjoint supports, whose score grows like the
    factor, and fades like sigma^2 for smooth laws that overlap.
    """
    return schedule.sqrt_alpha_bar[t] / jnp.square(schedule.sigma[t])


def no_scale(schedule: Schedule, t: Step) -> Scalar:
    """The bare network."""
    del schedule, t
    return jnp.ones(())


SCORE = Objective(
    name="score",
    align=align_scores,
    scale=score_scale,
    conditioned=True,
    sums_windows=True,
    absorbs_variance=False,
    activation="mish",
)
"""Log density ratios, in nats."""

PAPER = Objective(
    name="paper",
    align=align_means,
    scale=no_scale,
    conditioned=False,
    sums_windows=False,
    absorbs_variance=True,
    activation="leaky_relu",
)
"""As the published code does, which forgets conditioning and padding."""

OBJECTIVES = {objective.name: objective for objective in (SCORE, PAPER)}
"""Objectives by the names that configs have for them."""
