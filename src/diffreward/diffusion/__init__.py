"""Diffusion maths: schedules, the forward process, the loss and the samplers."""

from diffreward.diffusion.condition import Condition, pin, pinned_observations
from diffreward.diffusion.loss import denoising_loss, draw_levels
from diffreward.diffusion.process import (
    Prediction,
    clip_x_0,
    eps_of_mean,
    from_eps,
    posterior_mean,
    q_sample,
    to_eps,
)
from diffreward.diffusion.sampler import ddim_levels, ddim_step, ddpm_step, sample
from diffreward.diffusion.schedule import Schedule, cosine, from_beta, linear

__all__ = [
    "Condition",
    "Prediction",
    "Schedule",
    "clip_x_0",
    "cosine",
    "ddim_levels",
    "ddim_step",
    "ddpm_step",
    "denoising_loss",
    "draw_levels",
    "eps_of_mean",
    "from_beta",
    "from_eps",
    "linear",
    "pin",
    "pinned_observations",
    "posterior_mean",
    "q_sample",
    "sample",
    "to_eps",
]
