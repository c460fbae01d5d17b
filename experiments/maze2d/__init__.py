"""Maze2D, from physics to reward maps: data -> base -> experts -> rewards -> report."""
