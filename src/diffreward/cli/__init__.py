"""The command line: ``diffreward extract | score | report | detect``."""

from diffreward.cli.main import main

__all__ = ["main"]
