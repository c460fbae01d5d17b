"""Gradient alignment: a network whose gradient is the difference of the two scores."""

from pathlib import Path

import jax
from jaxtyping import Array

from diffreward.card import Reward
from diffreward.extract.network import inner_product, score_scales
from diffreward.extract.source import FitSettings, Source, require
from diffreward.extract.training import halves, noise, samples_of, train_reward
from diffreward.networks import LevelScaled
from diffreward.reward import align, alignment_loss


def gradient_alignment(
    source: Source, settings: FitSettings, seed: int, workdir: Path | None
) -> Reward:
    """Learns rho with ``grad rho = score_expert - score_base`` (Nuti et al., 2023).

    Reads the pair, and clean samples of either model or of both in equal numbers, at
    which it looks; the ``score`` preset of `reward.align`.

    Raises:
        ValueError: without a pair, or without any samples.
    """
    name = "gradient_alignment"
    require(name, source, "pair")
    pair, data = source.pair, samples_of(source)
    if not data:
        raise ValueError(f"{name} needs samples; give Source.base, Source.expert or both")
    assert pair is not None
    schedule, pinned = pair.schedule, source.pinned

    def loss(reward_fn, key: Array, x_0: Array) -> tuple:
        def one(x_t: Array, t: Array) -> tuple:
            part = align(pair, x_t, t)
            mask = None if pinned is None else ~pinned
            return alignment_loss(
                reward_fn, x_t, t, part.target, weight=part.weight, mask=mask
            )

        x_t, t, _ = noise(schedule, key, x_0, pinned)
        value, metrics = jax.vmap(one)(x_t, t)
        return value.mean(), {"fvu": metrics["residual"].sum() / metrics["signal"].sum()}

    return train_reward(
        name,
        LevelScaled(inner_product(settings), score_scales(schedule)),
        loss,
        lambda data, key: halves(data, key, settings.batch_size),
        source,
        settings,
        seed,
        workdir,
        data=data,
        sample=next(iter(data.values()))[0],
        schedule=schedule,
        units="nats",
        evaluations=3,
    )
