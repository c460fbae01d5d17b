"""Locomotion: data -> base, expert -> rewards and baselines -> rollouts -> table."""
