"""Diffusion maths: schedules, the forward process, the loss and the samplers."""

from diffreward.diffusion.condition import Condition, pin, pinned_observations
from diffreward.diffusion.detect import Detection, detect_prediction
from diffreward.diffusion.loss import denoising_loss, draw_levels
from diffreward.diffusion.model import (
    DiffusionModel,
    classifier_free,
    common_schedule,
    given,
    relative_coordinates,
    to_eps_fn,
)
from diffreward.diffusion.noise import (
    NoiseProcess,
    covers,
    discrete,
    match_times,
    rectified_flow,
    variance_exploding,
    variance_preserving,
    variance_preserving_cosine,
)
from diffreward.diffusion.paired import PairedChain, Remembering, paired_chain
from diffreward.diffusion.process import (
    Prediction,
    check_prediction,
    clip_x_0,
    eps_of_mean,
    eps_of_output,
    from_eps,
    posterior_mean,
    q_sample,
    to_eps,
)
from diffreward.diffusion.safe import (
    SAFETY_CONCEPT,
    SAFETY_PRESETS,
    SafetyMemory,
    SafetyPreset,
    initial_memory,
    safe_eps,
    safe_step,
)
from diffreward.diffusion.sampler import ddim_levels, ddim_step, ddpm_step, sample
from diffreward.diffusion.schedule import Schedule, cosine, from_beta, from_log_snr, linear

__all__ = [
    "SAFETY_CONCEPT",
    "SAFETY_PRESETS",
    "Condition",
    "Detection",
    "DiffusionModel",
    "NoiseProcess",
    "PairedChain",
    "Prediction",
    "Remembering",
    "SafetyMemory",
    "SafetyPreset",
    "Schedule",
    "check_prediction",
    "classifier_free",
    "clip_x_0",
    "common_schedule",
    "cosine",
    "covers",
    "ddim_levels",
    "ddim_step",
    "ddpm_step",
    "denoising_loss",
    "detect_prediction",
    "discrete",
    "draw_levels",
    "eps_of_mean",
    "eps_of_output",
    "from_beta",
    "from_eps",
    "from_log_snr",
    "given",
    "initial_memory",
    "linear",
    "match_times",
    "paired_chain",
    "pin",
    "pinned_observations",
    "posterior_mean",
    "q_sample",
    "rectified_flow",
    "relative_coordinates",
    "safe_eps",
    "safe_step",
    "sample",
    "to_eps",
    "to_eps_fn",
    "variance_exploding",
    "variance_preserving",
    "variance_preserving_cosine",
]
