"""Steering: guidance, planning and rollouts."""

from diffreward.steer.guidance import Space, guide, guide_by_difference
from diffreward.steer.planner import plan
from diffreward.steer.rollout import follow_plans

__all__ = ["Space", "follow_plans", "guide", "guide_by_difference", "plan"]
