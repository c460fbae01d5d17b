"""Matplotlib's objects without its global state: no screen, no chosen backend.

Notebooks export ``MPLBACKEND`` to every process they start, and Matplotlib cannot even be
imported where that backend is not installed. Figures made here never need one.
"""

import contextlib
import os

_told = os.environ.pop("MPLBACKEND", None)
try:
    import matplotlib as mpl
finally:
    if _told is not None:
        os.environ["MPLBACKEND"] = _told
if _told is not None:
    with contextlib.suppress(ValueError):
        mpl.rcParams["backend"] = _told  # what the import would have done

from matplotlib.animation import FuncAnimation, PillowWriter  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.collections import LineCollection  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.ticker import EngFormatter  # noqa: E402

__all__ = [
    "Axes",
    "EngFormatter",
    "Figure",
    "FuncAnimation",
    "LineCollection",
    "PillowWriter",
]
