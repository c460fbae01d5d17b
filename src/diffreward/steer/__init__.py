"""Steering and use of a reward: guidance, planning, particles, rewards per step."""

from diffreward.steer.control import (
    Controller,
    Rollouts,
    Sampler,
    make_controller,
    roll_out,
)
from diffreward.steer.finetune import make_finetune_loss, reward_through_chain
from diffreward.steer.guidance import Space, guide, guide_by_difference
from diffreward.steer.kl import chain_kl
from diffreward.steer.planner import plan
from diffreward.steer.relabel import relabel, write_d4rl, write_minari
from diffreward.steer.rollout import follow_plans
from diffreward.steer.select import Choice, choose_scale, score_on_test, tilt_ess
from diffreward.steer.smc import Particles, smc_sample
from diffreward.steer.stepwise import (
    ValueFn,
    clean_reward,
    credit_prefixes,
    credit_windows,
    make_step_reward,
    window_values,
)
from diffreward.steer.wrappers import RewardVectorWrapper, RewardWrapper
from diffreward.weights import effective_sample_size

__all__ = [
    "Choice",
    "Controller",
    "Particles",
    "RewardVectorWrapper",
    "RewardWrapper",
    "Rollouts",
    "Sampler",
    "Space",
    "ValueFn",
    "chain_kl",
    "choose_scale",
    "clean_reward",
    "credit_prefixes",
    "credit_windows",
    "effective_sample_size",
    "follow_plans",
    "guide",
    "guide_by_difference",
    "make_controller",
    "make_finetune_loss",
    "make_step_reward",
    "plan",
    "relabel",
    "reward_through_chain",
    "roll_out",
    "score_on_test",
    "smc_sample",
    "tilt_ess",
    "window_values",
    "write_d4rl",
    "write_minari",
]
