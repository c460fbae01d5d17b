"""Steering: guidance, planning and rollouts."""

from diffreward.steer.control import (
    Controller,
    Rollouts,
    make_controller,
    roll_out,
)
from diffreward.steer.guidance import Space, guide, guide_by_difference
from diffreward.steer.kl import chain_kl
from diffreward.steer.planner import plan
from diffreward.steer.rollout import follow_plans

__all__ = [
    "Controller",
    "Rollouts",
    "Space",
    "chain_kl",
    "follow_plans",
    "guide",
    "guide_by_difference",
    "make_controller",
    "plan",
    "roll_out",
]
