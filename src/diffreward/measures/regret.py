"""Regret of a policy trained on a reward: the measure that needs no theory of rewards.

Gleave et al. (2021) call it the rollout method. Train with a fixed budget on the true
reward as well, and take that policy for the expert, so that the optimiser's own failures
do not count against the reward.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from diffreward.measures.interval import Interval, bootstrap


class PolicyReturns(NamedTuple):
    """True returns of three policies on one task.

    A row is what was drawn independently: an episode of a fixed policy, or the mean
    return of one training seed if training is to be part of the interval.
    """

    expert: Float[np.ndarray, " experts"]
    trained: Float[np.ndarray, " trained"]
    random: Float[np.ndarray, " randoms"]


def policy_regret(
    returns: PolicyReturns | Sequence[PolicyReturns],
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> Interval:
    """(J(expert) - J(trained)) / (J(expert) - J(random)), averaged over tasks.

    0 is the expert, 1 the random policy; both ends can be passed. The interval
    resamples each policy of each task on its own (stratified, as Agarwal et al. 2021
    recommend); a draw in which an expert is no better than random is left out.

    Raises:
        ValueError: if there is no task, a policy has no returns, or an expert is no
            better than random.
    """
    tasks = [returns] if isinstance(returns, PolicyReturns) else list(returns)
    if not tasks:
        raise ValueError("policy_regret: no tasks given")
    for i, task in enumerate(tasks):
        for name, values in zip(task._fields, task, strict=True):
            if len(values) == 0:
                raise ValueError(f"task {i}: no returns of the {name} policy")
        expert, random = np.mean(task.expert), np.mean(task.random)
        if expert <= random:
            raise ValueError(
                f"task {i}: the expert's return {expert:g} does not exceed random's "
                f"{random:g}; regret has no scale there"
            )

    def mean_regret(*groups: np.ndarray) -> float:
        means = np.array([group.mean() for group in groups]).reshape(-1, 3)
        room = means[:, 0] - means[:, 2]
        if (room <= 0).any():
            return np.nan
        return float(((means[:, 0] - means[:, 1]) / room).mean())

    strata = [(np.asarray(v, np.float64),) for task in tasks for v in task]
    return bootstrap(mean_regret, *strata, seed=seed, resamples=resamples)
