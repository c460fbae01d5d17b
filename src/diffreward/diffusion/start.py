"""Where chains begin."""

import jax

from diffreward.diffusion.schedule import Schedule
from diffreward.types import PRNGKey, Sample


def draw_noise(schedule: Schedule, key: PRNGKey, shape: tuple[int, ...]) -> Sample:
    """The noisiest state x_T ~ N(0, I) of a chain.

    Args:
        schedule: of the chain.
        key: of the draw.
        shape: of one sample.

    Raises:
        ValueError: if the chain stops before noise, so that its last level still holds
            samples, and N(0, I) is not what it ends in.
    """
    left = schedule.signal_left
    if left is not None:
        raise ValueError(
            f"the chain stops before noise: its last level {schedule.num_steps - 1} has a "
            f"signal-to-noise ratio of {left:.3g}, so no sample can start there from "
            "N(0, I); take a schedule that goes on to noise, or start sample at an x_T"
        )
    return jax.random.normal(key, shape)
