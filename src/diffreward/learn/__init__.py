"""Training: denoisers, rewards aligned with pairs of them, and what those compare with."""

from diffreward.learn.align import (
    SOURCES,
    RewardModel,
    alignment,
    energy_reward,
    log_density,
    reward_task,
)
from diffreward.learn.baselines import classification, preference, regression
from diffreward.learn.denoise import Denoiser, batch_loss, denoising_task, init
from diffreward.learn.distil import distillation, distillation_loss, distillation_task
from diffreward.learn.low_rank import init_low_rank, with_low_rank
from diffreward.learn.noise import Noised, draw_noise, equal_parts, noise, noise_at, rows
from diffreward.learn.records import (
    LatentRewardModel,
    RecordedEnergy,
    RecordedReward,
    RecordedState,
    RecordLoss,
    record_task,
)
from diffreward.learn.weighting import WEIGHTINGS, Weighting

__all__ = [
    "SOURCES",
    "WEIGHTINGS",
    "Denoiser",
    "LatentRewardModel",
    "Noised",
    "RecordLoss",
    "RecordedEnergy",
    "RecordedReward",
    "RecordedState",
    "RewardModel",
    "Weighting",
    "alignment",
    "batch_loss",
    "classification",
    "denoising_task",
    "distillation",
    "distillation_loss",
    "distillation_task",
    "draw_noise",
    "energy_reward",
    "equal_parts",
    "init",
    "init_low_rank",
    "log_density",
    "noise",
    "noise_at",
    "preference",
    "record_task",
    "regression",
    "reward_task",
    "rows",
    "with_low_rank",
]
