"""Rewards: pairs of models, gradient alignment, and measures of a reward."""
