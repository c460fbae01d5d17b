"""The front door: a pair, its reward, and what the reward is good for, in one call each.

What stands here works on batches and calls the packages, which are written for one sample.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from diffreward import card, extract, steer
from diffreward.arguments import (
    at_least,
    check_noise_prediction,
    flags_of,
    is_number,
    kind,
    rows_of_context,
    samples_of,
    shape_of_answer,
)
from diffreward.card import load
from diffreward.data.normaliser import Normaliser
from diffreward.diffusion import (
    Context,
    DiffusionModel,
    Schedule,
    context_layout,
    sample,
    to_eps_fn,
)
from diffreward.findings import Findings, measure
from diffreward.reward import Pair, Reward, make_pair, score_samples
from diffreward.toy import ToyPair, toy_pair
from diffreward.types import EpsFn, Scalar

__all__ = [
    "DiffusionModel",
    "Findings",
    "Pair",
    "Reward",
    "ToyPair",
    "context_layout",
    "draw_samples",
    "fit",
    "guide",
    "load",
    "make_pair",
    "measure",
    "save",
    "score",
    "toy_pair",
]

Samples = Float[np.ndarray | Array, "_ ..."] | tuple[Any, Context]
"""Clean samples of one shape, one per row; where a pair or a reward is conditional, with
their contexts, (samples, {name: a row per sample})."""


NOT_MEASURED = (
    "Nothing was measured: how much of the difference of the models this reward explains, "
    "and whether its values are calibrated, is unknown."
)


def fit(
    pair: Pair,
    samples: Samples | None = None,
    *,
    base: Samples | None = None,
    expert: Samples | None = None,
    steps: int = 2000,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    network: nn.Module | None = None,
    pinned: Bool[np.ndarray | Array, "..."] | None = None,
    normaliser: Normaliser | None = None,
    seed: int = 0,
    workdir: str | Path | None = None,
    progress: bool = False,
) -> Reward:
    """Learns the reward whose gradient is the difference of a pair's scores.

    Gradient alignment (Nuti et al., 2023) with ``reward.SCORE``. Samples say where to
    look, not what is good: of the base, of the expert, or of both. Other methods are
    ``extract.fit(name, source, settings)``.

    Args:
        pair: of :func:`diffreward.reward.make_pair`.
        samples: clean samples in the coordinates of the pair, of either model or mixed;
            or instead
        base: clean samples of the base, and
        expert: clean samples of the expert; of both, equal numbers are drawn.
        steps: of the optimiser.
        batch_size: samples per step.
        learning_rate: at its highest.
        network: Linen module that maps (x_t, t) to a scalar; None for a perceptron.
        pinned: entries of a sample that are a condition: shown clean, in no loss; by
            default those of the pair.
        normaliser: from the data's own units to the coordinates of the pair, kept with
            the reward; it is then scored on data in their own units.
        seed: of parameters, batches and noises.
        workdir: of the training, which the same call goes on with after an interruption;
            by default nothing is kept.
        progress: shown on stderr.

    Returns:
        The reward, in nats: log density of the expert over the base, up to a constant per
        noise level.

    Raises:
        ValueError: for arguments that do not fit together; the message says which.
    """
    if not isinstance(pair, Pair):
        raise ValueError(
            f"fit needs a pair, from make_pair(base, expert); got {kind(pair)}"
        )
    if (samples is None) == (base is None and expert is None):
        raise ValueError(
            "fit needs samples, or base= and expert= instead; give one of them"
        )
    given = {"samples": samples, "base": base, "expert": expert}
    told = {name: x for name, x in given.items() if x is not None}
    rows = {name: samples_of(name, x, pair.context) for name, x in told.items()}
    at_least("steps", steps, 1)
    at_least("batch_size", batch_size, len(rows))
    at_least("seed", seed, 0)
    if not (is_number(learning_rate) and learning_rate > 0):
        raise ValueError(f"learning_rate must be a positive number, got {learning_rate!r}")
    if not isinstance(network, nn.Module | None):
        raise ValueError(f"network must be a Linen module, got {kind(network)}")
    if not isinstance(normaliser, Normaliser | None):
        raise ValueError(f"normaliser must be a data.Normaliser, got {kind(normaliser)}")
    shape = next(iter(rows.values())).shape[1:]
    for name in ("base", "expert"):
        check_noise_prediction(f"{name} of the pair", getattr(pair, name), shape)
    if pair.context is not None:
        rows = {name: pair.context.normalised(x) for name, x in rows.items()}
        normaliser = pair.context.normaliser(normaliser)
    if network is not None:
        value = lambda x_t, t: network.init_with_output(jax.random.key(0), x_t, t)[0]
        if answer := shape_of_answer("network", value, shape):
            raise ValueError(
                f"network must map a sample to a scalar, not to shape {answer}"
            )
    source = extract.Source(
        pair=pair,
        base=rows.get("samples", rows.get("base")),
        expert=rows.get("expert"),
        pinned=flags_of("pinned", pinned, shape),
        normaliser=normaliser,
    )
    settings = extract.Training(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        network=network,
        progress=progress,
    )
    return extract.fit("gradient_alignment", source, settings, seed=seed, workdir=workdir)


def score(
    reward: Reward,
    samples: Samples,
    *,
    as_: str = "value",
    num_noises: int = 4,
    seed: int = 0,
) -> Float[np.ndarray, " samples"]:
    """Scores clean samples; only differences between them mean anything.

    Args:
        reward: of :func:`fit`, of a card or of any extractor.
        samples: in the data's own units; in the coordinates of the pair if the reward has
            no normaliser.
        as_: ``value``, in the units of the reward (``reward.units``); ``nats``, the same,
            refused of a reward in other units; ``ranking``, a mean over noise levels, which
            ranks best and has no unit.
        num_noises: averaged per level.
        seed: of the noises, which all samples share.

    Raises:
        ValueError: for samples of another shape than the reward's, with numbers that are
            not finite, or for another ``as_``.
    """
    _check_reward("score", reward)
    rows = samples_of("samples", samples, reward.context, reward.shape)
    at_least("num_noises", num_noises, 1)
    at_least("seed", seed, 0)
    return score_samples(reward, rows, seed=seed, num_noises=num_noises, as_=as_)


def guide(
    model: EpsFn | DiffusionModel,
    reward: Reward,
    scale: Scalar | float = 1.0,
    *,
    space: steer.Space = "eps",
    t_stop: int = 0,
    pinned: Bool[np.ndarray | Array, "..."] | None = None,
) -> EpsFn:
    """Steers a model along the gradient of a reward.

    Args:
        model: a noise prediction of (x_t, t) at the levels and in the coordinates of the
            reward, such as ``pair.base``; or a declared model, which is brought there.
        reward: in nats, a scale of 1 turns its base into its expert.
        scale: 0 is the model itself.
        space: where the gradient is added, see :func:`diffreward.steer.guide`.
        t_stop: no guidance at levels below it.
        pinned: conditioned entries, never moved; by default those of the reward.

    Returns:
        A noise prediction, which samplers take like any other.

    Raises:
        ValueError: for arguments that do not fit together; the message says which.
    """
    _check_reward("guide", reward)
    fixed = flags_of("pinned", reward.pinned if pinned is None else pinned, reward.shape)
    if isinstance(model, DiffusionModel):
        if reward.context is not None:
            raise ValueError(
                "this reward needs a context, and so does what it steers: "
                f"guide(model, reward.given(context)); it is {reward.context.words}"
            )
        model = to_eps_fn(model, reward.schedule, reward.normaliser, fixed)
    elif not callable(model):
        one = "its .base" if isinstance(model, Pair) else "a function (x_t, t) -> eps"
        raise ValueError(f"guide steers one model; give {one} instead of {kind(model)}")
    if not isinstance(scale, jax.Array) and not is_number(scale):
        raise ValueError(f"scale must be a finite number, got {scale!r}")
    at_least("t_stop", t_stop, 0)
    return steer.guide(
        model,
        reward.reward_fn,
        reward.schedule,
        scale,
        space=space,
        t_stop=t_stop,
        pinned=fixed,
    )


def draw_samples(
    model: EpsFn | Callable[[Context], EpsFn],
    schedule: Schedule,
    shape: tuple[int, ...],
    *,
    context: Context | None = None,
    seed: int = 0,
) -> Float[np.ndarray, "samples ..."]:
    """Draws samples of a model, steered or not; equal seeds begin with equal noise.

    Args:
        model: noise prediction of (x_t, t); with a ``context``, a function of one that
            gives it, such as ``lambda c: guide(pair.given(c).base, reward.given(c))``.
        schedule: its levels, such as ``pair.schedule``.
        shape: of all: a number of samples, then the shape of one.
        context: arrays by name, with a row for every sample to draw.
        seed: of all noises.

    Raises:
        ValueError: for arguments that do not fit together; the message says which.
    """
    if not isinstance(schedule, Schedule):
        raise ValueError(
            f"schedule must be one, such as pair.schedule; got {kind(schedule)}"
        )
    if not isinstance(shape, tuple) or len(shape) < 2:
        raise ValueError(f"shape must be (samples, *shape of one), got {shape!r}")
    for size in shape:
        at_least("every size of shape", size, 1)
    at_least("seed", seed, 0)
    rows = {k: rows_of_context(k, v, shape[0]) for k, v in (context or {}).items()}
    asked: Callable[..., Any] = model
    under = lambda given: asked if context is None else asked(given)
    check_noise_prediction("model", under({k: v[0] for k, v in rows.items()}), shape[1:])

    def draw(key: Array, given: Context) -> Array:
        return sample(under(given), schedule, key, shape[1:])

    keys = jax.random.split(jax.random.key(seed), shape[0])
    return np.asarray(jax.jit(jax.vmap(draw))(keys, rows))


def save(
    reward: Reward,
    folder: str | Path,
    *,
    shape: tuple[int, ...] | None = None,
    provenance: Mapping[str, Any] | None = None,
    findings: Findings | None = None,
    measures: Mapping[str, Any] | None = None,
    limits: Sequence[str] = (),
    replace: bool = False,
) -> None:
    """Writes the card of a reward: weights, units, a NumPy program; whole or not at all.

    Args:
        reward: one that was trained.
        folder: of the card; must not exist, unless it is a card to ``replace``.
        shape: of one sample, if the reward does not know it.
        provenance: where it comes from.
        findings: of :func:`measure`: their measures, and the limits that follow from them.
        measures: what else was measured; numbers, or (value, low, high).
        limits: what else the reward must not be used for, one sentence each.
        replace: overwrite an existing card.

    Raises:
        ValueError: for a reward that cannot be saved, or a folder in the way.
        OSError: if it cannot be written.
    """
    _check_reward("save", reward)
    shape = shape or reward.shape
    if shape is None:
        raise ValueError("the reward does not know the shape of a sample; give save shape=")
    if findings is None:
        found, known = {}, [] if measures else [NOT_MEASURED]
    else:
        found, known = findings.measures, findings.limits
    card.save(
        reward,
        folder,
        shape,
        provenance=provenance,
        measures={**found, **(measures or {})},
        limits=[*known, *limits],
        replace=replace,
    )


def _check_reward(function: str, reward: object) -> None:
    if not isinstance(reward, Reward):
        raise ValueError(
            f"{function} needs a reward, such as fit and load return; got {kind(reward)}"
        )
