"""Steering: guidance, planning and rollouts."""
