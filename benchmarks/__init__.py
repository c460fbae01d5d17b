"""Timing questions, each a module: ``python -m benchmarks.train_step``."""
