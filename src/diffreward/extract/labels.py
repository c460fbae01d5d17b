"""Rewards learned from samples and labels alone; no diffusion model is read."""

from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffreward.extract.network import scalar
from diffreward.extract.settings import Training
from diffreward.extract.source import Source, require, schedule_of
from diffreward.extract.training import Lesson, halves, samples_of, train_reward
from diffreward.learn import classification, preference, regression, rows
from diffreward.reward import Reward


def discriminator(
    source: Source, settings: Training, seed: int, workdir: Path | None
) -> Reward:
    """The logit of a classifier of noised expert samples against noised base samples.

    With equal numbers of both, its minimum is log p_expert / p_base at every level
    (Goodfellow et al., 2014, proposition 1); time-conditional as the baseline of Nuti
    et al. (2023), which steers along the sigmoid instead. Reads base and expert.

    Raises:
        ValueError: without samples of both.
    """
    name = "discriminator"
    require(name, source, "base", "expert")
    schedule, data = schedule_of(name, source), samples_of(source)

    def loss(reward_fn, key: Array, x_0: Array) -> tuple:
        return classification(reward_fn, schedule, key, x_0, source.pinned)

    network = scalar(settings, schedule)
    draw = lambda data, key: halves(data, key, settings.batch_size)
    lesson = Lesson(network, loss, draw, data, data["base"].shape[1:], schedule, "nats")
    return train_reward(name, lesson, source, settings, seed, workdir)


def bradley_terry(
    source: Source, settings: Training, seed: int, workdir: Path | None
) -> Reward:
    """Fits P(preferred over other) = sigmoid of the difference of rewards.

    Christiano et al. (2017), equation 1, on samples noised to one level, so that the
    reward has a gradient at every level. The level-0 reward is the one people judge by;
    higher up it is a smoothed one, no log density ratio. Reads preferences.

    Raises:
        ValueError: without preferences.
    """
    name = "bradley_terry"
    require(name, source, "preferences")
    schedule, labelled = schedule_of(name, source), source.preferences
    assert labelled is not None
    data = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), labelled._asdict())

    def loss(reward_fn, key: Array, batch: dict[str, Array]) -> tuple:
        return preference(reward_fn, schedule, key, **batch, pinned=source.pinned)

    network = scalar(settings, schedule)
    draw = lambda data, key: rows(data, key, settings.batch_size // 2)
    lesson = Lesson(
        network, loss, draw, data, data["preferred"].shape[1:], schedule, "preferences"
    )
    return train_reward(name, lesson, source, settings, seed, workdir)


def return_regression(
    source: Source, settings: Training, seed: int, workdir: Path | None
) -> Reward:
    """Regresses the true return on noised samples.

    The value function that guides Diffuser (Janner et al., 2022, section 3.3); its
    minimum is the mean return of all clean samples behind x_t, here less the mean over
    all. In the units of the returns. Reads returns, and samples of base, expert or both
    in that order.

    Raises:
        ValueError: without returns or samples.
    """
    name = "return_regression"
    require(name, source, "returns")
    schedule, samples = schedule_of(name, source), samples_of(source)
    if not samples:
        raise ValueError(f"{name} needs samples; give Source.base, Source.expert or both")
    x_0 = jnp.concatenate(list(samples.values()))
    returns = jnp.asarray(source.returns, jnp.float32)
    mean, spread = returns.mean(), float(jnp.maximum(returns.std(), 1e-6))
    data = (x_0, returns - mean)

    def loss(reward_fn, key: Array, batch: tuple[Array, Array]) -> tuple:
        error, metrics = regression(reward_fn, schedule, key, *batch, source.pinned)
        return error / spread**2, metrics

    network = scalar(settings, schedule, spread)
    draw = lambda data, key: rows(data, key, settings.batch_size)
    lesson = Lesson(network, loss, draw, data, x_0.shape[1:], schedule, "returns")
    return train_reward(name, lesson, source, settings, seed, workdir)
