"""Measures of any reward: ranking, calibration, distances, regret, steering."""
