"""Extract, measure and use the reward that separates two diffusion models."""

from pathlib import Path
from typing import Any

__version__ = "0.1.0"


def load(folder: str | Path) -> Any:
    """Reads the reward of a card; see :func:`diffreward.card.load`."""
    from diffreward import card  # a bare import of the package stays light

    return card.load(folder)
