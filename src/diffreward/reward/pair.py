"""A pair of diffusion models in one coordinate system."""

from typing import NamedTuple

import numpy as np

from diffreward.diffusion import (
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


class Pair(NamedTuple):
    """Base and expert noise predictions over the same coordinates and levels."""

    base: EpsFn
    expert: EpsFn
    schedule: Schedule
    pinned: Mask | None = None
    """Entries that :func:`make_pair` was told to show both models clean."""
    scales: bool = False
    """Whether other clean entries of x_t would reach a model scaled as if noised."""

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
                "a model of this pair scales what it is shown, also what is pinned; give "
                "make_pair the same entries: make_pair(base, expert, pinned=pinned)"
            )


def make_pair(
    base: DiffusionModel,
    expert: DiffusionModel,
    schedule: Schedule | None = None,
    pinned: Mask | None = None,
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

    Raises:
        ValueError: if the models cannot be brought together; the message says which
            values are in the way.
    """
    for model in (base, expert):
        check_prediction(model.prediction)
    if schedule is None:
        schedule = _own_schedule(base, expert)
    models = (base, expert)
    fns = [to_eps_fn(m, schedule, base.normaliser, pinned) for m in models]
    scales = not all(shows_clean(m, schedule, base.normaliser) for m in models)
    return Pair(fns[0], fns[1], schedule, pinned, scales)


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
