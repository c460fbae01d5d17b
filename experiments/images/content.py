"""Does a score know what the expert avoids? On samples, phrasings and real pictures."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from diffreward import data as d
from diffreward import measures
from experiments.images.build import Run
from experiments.images.scorers import CHUNK, Profile


class Group(NamedTuple):
    """Samples of two known kinds."""

    name: str
    x_0: np.ndarray
    preferred: np.ndarray
    context: tuple[Array, ...]
    """Of the pair, one row per sample; what a score does not read it leaves alone."""


def groups(run: Run, records: Mapping[str, np.ndarray]) -> list[Group]:
    """What is known of the samples of the base, and the audience.

    The base's samples of the requests that ask for what is avoided against those that do
    not; the same among the requests of every value of a column that has both kinds; real
    pictures, under the context of no request at all.
    """
    pair, found = run.pair, []
    if pair.avoided is not None:
        own = ~records["follows_expert"]
        request, x_0 = records["request"][own], records["x_0"][own]
        good = ~pair.avoided[request]

        def add(name: str, here: np.ndarray) -> None:
            if here.any() and 0 < good[here].sum() < here.sum():
                # Some at a time: encoders of text are large.
                contexts = d.map_batches(pair.contexts, CHUNK, request[here])
                found.append(Group(name, x_0[here], good[here], contexts))

        add("samples of the base", np.ones(len(request), bool))
        for column, values in d.slices(pair.prompts.columns).items():
            if not set(values) <= d.FLAGS:  # the kinds themselves
                for value, members in values.items():
                    add(f"samples, {column}: {value}", np.isin(request, members))
    audience = pair.audience
    if audience is not None:
        empty = pair.empty() if pair.empty else pair.contexts([0])
        rows = jax.tree.map(lambda c: c[:1].repeat(len(audience.images), 0), empty)
        found.append(Group("real pictures", audience.images, audience.preferred, rows))
    return found


def evaluate(
    scores: Mapping[str, Profile], found: Sequence[Group], resamples: int
) -> dict[str, Any]:
    """AUROC of every score on every group, kept over avoided, with its intervals."""
    rows, profiles = [], {}
    for group in found:
        row: dict[str, Any] = {
            "name": group.name,
            "preferred": int(group.preferred.sum()),
            "avoided": int((~group.preferred).sum()),
        }
        for name, profile in scores.items():
            by_level = profile(group.x_0, group.context)
            # A log ratio is the sum of its levels, of which a mean says the same.
            value, good = by_level.mean(1), group.preferred
            auroc = measures.auroc(value[good], value[~good], resamples=resamples)
            row[name] = list(auroc)
            profiles[f"{group.name}/{name}"] = [
                measures.mann_whitney(by_level[good, i], by_level[~good, i])
                for i in range(by_level.shape[1])
            ]
        rows.append(row)
    return {"scores": list(scores), "groups": rows, "by_level": profiles}
