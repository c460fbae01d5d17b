"""Extract, measure and use the reward that separates two diffusion models."""

__version__ = "0.1.0"
