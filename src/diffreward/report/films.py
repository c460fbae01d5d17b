"""Films without a screen: planar bodies as lines, side by side, in one GIF."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from diffreward import files
from diffreward.report.canvas import Figure, FuncAnimation, LineCollection, PillowWriter

VIEW = 2.5
"""Half of the width that is seen, metres; the camera follows the body."""


def film(
    path: Path,
    bodies: dict[str, Float[np.ndarray, "frames segments 2 2"]],
    *,
    colours: dict[str, str],
    frames_per_second: int = 25,
) -> None:
    """Writes a GIF; a body whose episode is over stays where it ended.

    Args:
        path: file to write, whole or not at all.
        bodies: limbs (x, z) of each method, see ``data.body_segments``.
        colours: of each method.
        frames_per_second: of the film; every given frame is shown.

    Raises:
        ValueError: without bodies.
    """
    if not bodies:
        raise ValueError("film: no bodies given")
    count = max(len(frames) for frames in bodies.values())
    fig = Figure(figsize=(6, 1.6 * len(bodies)))
    axes = fig.subplots(len(bodies), 1, squeeze=False)
    lines = []
    for ax, name in zip(axes[:, 0], bodies, strict=True):
        ax.set_ylim(-0.1, 1.7)
        ax.set_yticks([])
        ax.tick_params(labelbottom=False)  # titles of the next one stand there
        ax.axhline(0, color="black", linewidth=1)
        ax.set_title(name, fontsize=8, loc="left")
        collection = LineCollection(
            [], colors=colours[name], linewidths=5, capstyle="round"
        )
        lines.append(ax.add_collection(collection))

    def draw(frame: int) -> list:
        for ax, line, body in zip(axes[:, 0], lines, bodies.values(), strict=True):
            segments = body[min(frame, len(body) - 1)]
            middle = segments[:, :, 0].mean()
            line.set_segments(list(segments))
            ax.set_xlim(middle - VIEW, middle + VIEW)
        return lines

    writer = PillowWriter(fps=frames_per_second)
    with files.writing(path) as made:
        FuncAnimation(fig, draw, frames=count, blit=False).save(made, writer=writer, dpi=80)
