"""Training: denoisers, rewards aligned with pairs of them, and what those compare with."""

from diffreward.learn.align import (
    SOURCES,
    LatentRewardModel,
    RecordedReward,
    RecordedState,
    RewardModel,
    alignment,
    energy_reward,
    record_task,
    reward_task,
    unexplained,
)
from diffreward.learn.baselines import classification, preference, regression
from diffreward.learn.denoise import Denoiser, batch_loss, denoising_task, init
from diffreward.learn.noise import Noised, draw_noise, equal_parts, noise, noise_at, rows

__all__ = [
    "SOURCES",
    "Denoiser",
    "LatentRewardModel",
    "Noised",
    "RecordedReward",
    "RecordedState",
    "RewardModel",
    "alignment",
    "batch_loss",
    "classification",
    "denoising_task",
    "draw_noise",
    "energy_reward",
    "equal_parts",
    "init",
    "noise",
    "noise_at",
    "preference",
    "record_task",
    "regression",
    "reward_task",
    "rows",
    "unexplained",
]
