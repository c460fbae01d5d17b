"""The older address of :mod:`diffreward.reward.record`, for code that imports it here."""

from diffreward.reward.record import Reward, network_reward, score, score_samples

__all__ = ["Reward", "network_reward", "score", "score_samples"]
