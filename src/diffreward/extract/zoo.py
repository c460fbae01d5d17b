"""Extractors by name."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diffreward.extract.density import ito_log_ratio, ode_log_ratio
from diffreward.extract.energy_pair import energy_pair
from diffreward.extract.gradient_alignment import gradient_alignment
from diffreward.extract.labels import bradley_terry, discriminator, return_regression
from diffreward.extract.loss_gap import loss_gap
from diffreward.extract.potential import line_potential
from diffreward.extract.run import open_run, run_record
from diffreward.extract.source import FitSettings, Source, check
from diffreward.names import choose
from diffreward.reward import Reward

Extractor = Callable[[Source, FitSettings, int, Path | None], Reward]
"""Of (source, settings, seed, workdir)."""

EXTRACTORS: dict[str, Extractor] = {
    "gradient_alignment": gradient_alignment,
    "loss_gap": loss_gap,
    "ode_log_ratio": ode_log_ratio,
    "ito_log_ratio": ito_log_ratio,
    "line_integral": line_potential,
    "discriminator": discriminator,
    "bradley_terry": bradley_terry,
    "return_regression": return_regression,
    "energy_pair": energy_pair,
}
"""The methods by the names that :func:`fit` takes."""

UNTRAINED = ("loss_gap", "ode_log_ratio", "ito_log_ratio", "line_integral")
"""Extractors that have no run."""

DEFAULT = FitSettings()


def fit(
    extractor: str,
    source: Source,
    settings: FitSettings = DEFAULT,
    *,
    seed: int = 0,
    workdir: str | Path | None = None,
    models: Mapping[str, Any] | None = None,
) -> Reward:
    """Extracts a reward with the named method.

    Args:
        extractor: a key of ``EXTRACTORS``.
        source: models, samples and labels; see the extractor for what it reads.
        settings: compute and choices.
        seed: of parameters, batches and noises.
        workdir: folder of the training run, which a later call with the same arguments
            resumes; a temporary one by default. Extractors that train nothing write
            nothing.
        models: what the models of the pair are, for the record of the run; see
            :func:`diffreward.extract.run.run_record`.

    Returns:
        The reward, which says its units; offsets per level are free.

    Raises:
        ValueError: for an unknown extractor, a source without what it needs, or a
            ``workdir`` that holds steps of another run.
    """
    choose("extractor", extractor, EXTRACTORS)
    shape = check(extractor, source)
    folder = None if workdir is None else Path(workdir)
    if folder is not None and extractor not in UNTRAINED:
        open_run(folder, run_record(extractor, source, settings, seed, models))
    reward = EXTRACTORS[extractor](source, settings, seed, folder)
    return reward._replace(shape=shape)
