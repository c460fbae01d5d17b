"""Gradient alignment: a network whose gradient is the difference of the two scores."""

from pathlib import Path

import jax.numpy as jnp
from jaxtyping import Array

from diffreward.extract.network import inner_product, score_scales
from diffreward.extract.settings import Training
from diffreward.extract.source import Source, pair_of
from diffreward.extract.training import Lesson, halves, samples_of, train_reward
from diffreward.learn import alignment, noise
from diffreward.networks import LevelScaled
from diffreward.reward import SCORE, Reward
from diffreward.types import RewardFn


def gradient_alignment(
    source: Source, settings: Training, seed: int, workdir: Path | None
) -> Reward:
    """Learns rho with ``grad rho = score_expert - score_base`` (Nuti et al., 2023).

    Reads the pair, and clean samples of either model or of both in equal numbers, at
    which it looks; the objective ``SCORE`` of `diffreward.reward`.

    Raises:
        ValueError: without a pair, or without any samples.
    """
    name = "gradient_alignment"
    pair, data = pair_of(name, source), samples_of(source)
    if not data:
        raise ValueError(f"{name} needs samples; give Source.base, Source.expert or both")
    schedule, pinned = pair.schedule, source.pinned

    def loss(reward_fn: RewardFn, key: Array, x_0: Array) -> tuple:
        noised = noise(schedule, key, x_0, pinned)
        mask = None if pinned is None else jnp.broadcast_to(~pinned, x_0.shape)
        return alignment(reward_fn, pair, SCORE, noised, mask)

    lesson = Lesson(
        LevelScaled(inner_product(settings), score_scales(schedule)),
        loss,
        lambda data, key: halves(data, key, settings.batch_size),
        data,
        next(iter(data.values())).shape[1:],
        schedule,
        "nats",
        evaluations=3,
    )
    return train_reward(name, lesson, source, settings, seed, workdir)
