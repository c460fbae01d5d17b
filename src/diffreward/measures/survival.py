"""How long an episode goes well: a mean return hides whether it was slow or cut short."""

import numpy as np
from jaxtyping import Float, Int


def steps_to_failure(
    rewards: Float[np.ndarray, "episodes steps"],
    lengths: Int[np.ndarray, " episodes"],
    least: float,
    *,
    window: int = 50,
) -> Int[np.ndarray, " episodes"]:
    """Steps until an episode fails for good: ends, or earns too little ever after.

    Args:
        rewards: of every step; what stands after the end is not read.
        lengths: steps of every episode.
        least: mean reward of a window of steps that still counts as going well.
        window: steps of it.

    Returns:
        The end of the last window that went well; 0 if none did. An episode that has not
        failed by the last step counts its length (its time is censored there).
    """
    rewards = np.asarray(rewards, np.float64)
    steps = np.arange(1, rewards.shape[1] + 1)
    earned = np.cumsum(np.where(steps <= lengths[:, None], rewards, 0.0), 1)
    before = np.pad(earned, ((0, 0), (window, 0)))[:, : rewards.shape[1]]
    mean = (earned - before) / np.minimum(steps, window)
    well = (mean >= least) & (steps <= lengths[:, None])
    return np.where(well, steps, 0).max(1)


def survival(
    times: Int[np.ndarray, " episodes"], steps: int
) -> Float[np.ndarray, " times"]:
    """Share of episodes that have not failed after 0, 1, ..., ``steps`` steps."""
    return (np.asarray(times)[:, None] >= np.arange(steps + 1)).mean(0)
