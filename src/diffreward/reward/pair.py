"""A pair of diffusion models in one coordinate system."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array

from diffreward.diffusion import (
    Context,
    ContextLayout,
    DiffusionModel,
    Schedule,
    ancestral_mean,
    check_prediction,
    common_schedule,
    covers,
    relative_coordinates,
    shows_clean,
    to_eps_fn,
)
from diffreward.types import EpsFn, Mask, Sample, Step

Conditional = Callable[[Context], DiffusionModel]
"""A model of every context. All but its prediction is the same whatever the context."""


class Pair(NamedTuple):
    """Base and expert noise predictions over the same coordinates and levels."""

    base: EpsFn
    expert: EpsFn
    schedule: Schedule
    pinned: Mask | None = None
    """Entries that :func:`make_pair` was told to show both models clean."""
    scales: bool = False
    """Whether other clean entries of x_t would reach a model scaled as if noised."""
    context: ContextLayout | None = None
    """Of conditional models, whose samples are vectors with their contexts."""

    def given(self, context: Context) -> "Pair":
        """The pair under one context: of samples alone, like any pair.

        Args:
            context: arrays by name, also traced ones, such as a row under ``vmap``.

        Raises:
            ValueError: if the pair takes none, or for one of another shape.
        """
        layout = self.context
        if layout is None:
            raise ValueError("this pair is of samples alone and takes no context")
        told = layout.normalised(layout.blank(context))

        def under(eps_fn: EpsFn) -> EpsFn:
            asked = layout.under(eps_fn, told)
            return lambda x_t, t: layout.alone(asked(x_t, t))

        own = layout.own_pinned(self.pinned)
        return Pair(under(self.base), under(self.expert), self.schedule, own, self.scales)

    def check_pinned(self, pinned: Mask | None) -> None:
        """Refuses conditioned entries that a model would not be shown as they are.

        Raises:
            ValueError: with what to do about it.
        """
        told = self.pinned
        if told is None or pinned is None:
            same = told is None and pinned is None
        else:
            same = np.array_equal(told, pinned)
        if self.scales and not same:
            raise ValueError(
                "models of this pair are shown other entries clean than those that are "
                "pinned here; give make_pair the same: make_pair(base, expert, "
                "pinned=pinned), or take the pair's own, pair.pinned"
            )


def make_pair(
    base: DiffusionModel | Conditional,
    expert: DiffusionModel | Conditional,
    schedule: Schedule | None = None,
    pinned: Mask | None = None,
    context: ContextLayout | None = None,
) -> Pair:
    """Puts two models of any convention into the base's coordinates, at common levels.

    Every conversion is exact for exact models (see :func:`diffreward.diffusion.to_eps_fn`):
    kinds of prediction, forward processes and numbers of steps by equal log-SNR,
    coordinates by one factor and a shift.

    Args:
        base: first model; samples of the pair live in its coordinates.
        expert: second model.
        schedule: levels of the pair. By default the base's own if the expert covers
            them, else the expert's, else a cosine over the range they share.
        pinned: conditioned entries, which both models are shown clean at every level.
        context: of two conditional models, each a function from a context to a
            :class:`DiffusionModel`. Samples of the pair are the vectors that
            ``context.pack`` makes, and the pinned entries of a sample alone are given.

    Warns:
        UserWarning: if the levels stop before noise; see :func:`said_of_early_end`.

    Raises:
        ValueError: if the models cannot be brought together; the message says which
            values are in the way.
    """
    if context is not None:
        return _conditional_pair(base, expert, schedule, pinned, context)
    ours, theirs = (_declared(*m) for m in (("base", base), ("expert", expert)))
    if schedule is None:
        schedule = _own_schedule(ours, theirs)
    if schedule.signal_left is not None:
        warnings.warn(said_of_early_end(schedule.signal_left), stacklevel=2)
    models = (ours, theirs)
    first, second = (to_eps_fn(m, schedule, ours.normaliser, pinned) for m in models)
    scales = not all(shows_clean(m, schedule, ours.normaliser) for m in models)
    return Pair(first, second, schedule, pinned, scales)


def said_of_early_end(signal: float) -> str:
    """What a chain that stops before noise means for the use of its pair."""
    return (
        f"The chain of this pair stops before noise, at a signal-to-noise ratio of "
        f"{signal:.2g}: what the two models make of its last level is in no log ratio and "
        "no reward, and neither model can be sampled from N(0, I)."
    )


def _declared(name: str, model: Any) -> DiffusionModel:
    if not isinstance(model, DiffusionModel):
        raise ValueError(
            f"{name} is a {type(model).__name__}, no DiffusionModel; functions of a "
            "context need make_pair(..., context=context_layout(...))"
        )
    check_prediction(model.prediction)
    return model


def _conditional_pair(
    base: DiffusionModel | Conditional,
    expert: DiffusionModel | Conditional,
    schedule: Schedule | None,
    pinned: Mask | None,
    context: ContextLayout,
) -> Pair:
    """:func:`make_pair` of functions of a context."""
    asked = []
    for name, model in (("base", base), ("expert", expert)):
        if isinstance(model, DiffusionModel) or not callable(model):
            raise ValueError(
                f"{name} is a {type(model).__name__}; with a context it must be a function "
                "from a context to a DiffusionModel"
            )
        asked.append(model)
    first, second = (
        _declared(f"what {name} answers", model(context.example()))
        for name, model in zip(("base", "expert"), asked, strict=True)
    )
    alone, own = make_pair(first, second, schedule, pinned), first.normaliser

    def predicting(model: Conditional) -> EpsFn:
        def eps_fn(packed: Array, t: Array) -> Array:
            given, x = context.ask(model, packed)
            return context.answer(to_eps_fn(given, alone.schedule, own, pinned)(x, t))

        return eps_fn

    every = context.pinned(pinned)
    fns = (predicting(asked[0]), predicting(asked[1]))
    return Pair(fns[0], fns[1], alone.schedule, every, scales=True, context=context)


def _own_schedule(base: DiffusionModel, expert: DiffusionModel) -> Schedule:
    """The base's schedule, or the expert's, or a new one: the first both models cover."""
    factor, _ = relative_coordinates(base.normaliser, expert.normaliser)
    shifts = (0.0, 2 * np.log(factor))  # from our log-SNR to theirs
    known = [m.process.schedule for m in (base, expert) if m.process.schedule]
    for schedule in known:
        log_snr = np.log(np.asarray(schedule.snr, np.float64))
        models = zip((base, expert), shifts, strict=True)
        if all(covers(m.process, log_snr - shift) for m, shift in models):
            return schedule
    steps = max((s.num_steps for s in known), default=32)
    return common_schedule([base.process, expert.process], steps, shifts=shifts)


def relative_score(pair: Pair, x_t: Sample, t: Step) -> Sample:
    """Score of the expert minus score of the base, (eps_base - eps_expert) / sigma."""
    return (pair.base(x_t, t) - pair.expert(x_t, t)) / pair.schedule.sigma[t]


def posterior_means(pair: Pair, x_t: Sample, t: Step) -> tuple[Sample, Sample]:
    """Means of the next ancestral step under base and expert."""
    mean = lambda eps_fn: ancestral_mean(eps_fn, pair.schedule, x_t, t)
    return mean(pair.base), mean(pair.expert)
