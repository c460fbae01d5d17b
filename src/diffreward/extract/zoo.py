"""Extractors by name."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from diffreward.extract.density import ito_log_ratio, ode_log_ratio
from diffreward.extract.distilled import distilled_energies, residual_alignment
from diffreward.extract.energy_pair import energy_pair
from diffreward.extract.gradient_alignment import gradient_alignment
from diffreward.extract.labels import bradley_terry, discriminator, return_regression
from diffreward.extract.loss_gap import loss_gap
from diffreward.extract.potential import line_potential
from diffreward.extract.run import open_run, run_record
from diffreward.extract.settings import (
    ItoLogRatio,
    LineIntegral,
    LossGap,
    OdeLogRatio,
    Training,
)
from diffreward.extract.source import Source, check
from diffreward.names import choose
from diffreward.reward import Reward


class Extractor(NamedTuple):
    """A method of the zoo."""

    run: Callable[[Source, Any, int, Path | None], Reward]
    """Of (source, settings, seed, workdir)."""
    settings: type[Any]
    """A ``NamedTuple`` of what the method can be told, all with defaults."""
    trains: bool
    """Whether it keeps a training run in the workdir; others write nothing there."""


EXTRACTORS: dict[str, Extractor] = {
    "gradient_alignment": Extractor(gradient_alignment, Training, trains=True),
    "loss_gap": Extractor(loss_gap, LossGap, trains=False),
    "ode_log_ratio": Extractor(ode_log_ratio, OdeLogRatio, trains=False),
    "ito_log_ratio": Extractor(ito_log_ratio, ItoLogRatio, trains=False),
    "line_integral": Extractor(line_potential, LineIntegral, trains=False),
    "discriminator": Extractor(discriminator, Training, trains=True),
    "bradley_terry": Extractor(bradley_terry, Training, trains=True),
    "return_regression": Extractor(return_regression, Training, trains=True),
    "energy_pair": Extractor(energy_pair, Training, trains=True),
    "distilled_energies": Extractor(distilled_energies, Training, trains=True),
    "residual_alignment": Extractor(residual_alignment, Training, trains=True),
}
"""The methods by the names that :func:`fit` takes."""


def fit(
    extractor: str,
    source: Source,
    settings: Any = None,
    *,
    seed: int = 0,
    workdir: str | Path | None = None,
    models: Mapping[str, Any] | None = None,
) -> Reward:
    """Extracts a reward with the named method.

    Args:
        extractor: a key of ``EXTRACTORS``.
        source: models, samples and labels; see the extractor for what it reads.
        settings: the extractor's own record, ``EXTRACTORS[extractor].settings``; its
            defaults if None.
        seed: of parameters, batches and noises.
        workdir: folder of the training run, which a later call with the same arguments
            resumes; a temporary one by default. Extractors that train nothing write
            nothing.
        models: what the models of the pair are, for the record of the run; see
            :func:`diffreward.extract.run.run_record`.

    Returns:
        The reward, which says its units; offsets per level are free.

    Raises:
        ValueError: for an unknown extractor, settings of another one, a source without
            what it needs, or a ``workdir`` that holds steps of another run.
    """
    method = EXTRACTORS[choose("extractor", extractor, EXTRACTORS)]
    settings = method.settings() if settings is None else settings
    if not isinstance(settings, method.settings):
        wanted, got = method.settings, type(settings).__name__
        fields = ", ".join(wanted._fields)
        raise ValueError(
            f"{extractor} takes the settings {wanted.__name__}({fields}), got {got}"
        )
    context = None if source.pair is None else source.pair.context
    if source.pair is not None and source.pinned is None:
        source = source._replace(pinned=source.pair.pinned)
    if context is not None and source.normaliser is None:
        source = source._replace(normaliser=context.normaliser())
    shape = check(extractor, source)
    folder = None if workdir is None else Path(workdir)
    if folder is not None and method.trains:
        open_run(folder, run_record(extractor, source, settings, seed, models))
    reward = method.run(source, settings, seed, folder)
    return reward._replace(shape=shape, pinned=source.pinned, context=context)
