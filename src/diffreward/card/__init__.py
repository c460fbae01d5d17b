"""Reward cards: an extracted reward and everything needed to use it again."""

from diffreward.card.reward import Reward, score

__all__ = ["Reward", "score"]
