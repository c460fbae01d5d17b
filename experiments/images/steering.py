"""The base steered by its reward: how much less is avoided content, and at which cost."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax import Array

from diffreward import data as d
from diffreward import measures
from diffreward.diffusion import paired_chain
from diffreward.steer import guide
from diffreward.types import Params
from experiments.images.build import Run
from experiments.images.judge import Judge

LEAST = 8
"""Samples whose halves can still be compared with their nearest neighbours."""
MOST = 400
"""Samples that are compared with real pictures, at most: all pairs of them are."""


def steer(run: Run, params: Params, requests: np.ndarray, scale: float) -> np.ndarray:
    """Ends of the chains of some requests, from the noise that their records start from."""
    config, pair = run.config, run.pair
    root = jax.random.key(config.seed)

    @jax.jit
    def compute(models: Params, params: Params, context: Any, request: Array) -> Array:
        def one(row: Any, request: Array) -> Array:
            base, _ = pair.models(models, row)
            read = row[:1] if config.rewards.prompt else ()
            rho = run.reward.reward_fn(params, *read)
            guided = guide(base, rho, pair.schedule, scale)
            return paired_chain(
                base,
                guided,
                pair.schedule,
                jax.random.fold_in(root, request),
                pair.shape,
                follow_expert=True,
                num_evaluations=config.records.levels,
            ).x_0

        return jax.vmap(one)(context, request)

    def some(rows: np.ndarray) -> np.ndarray:
        return np.asarray(compute(pair.params, params, pair.contexts(rows), rows))

    return d.map_batches(some, config.records.batch_size, requests)


def evaluate(
    run: Run,
    params: Params,
    records: Mapping[str, np.ndarray],
    judge: Judge,
    *,
    steered: bool,
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Base, steered base and expert on requests that no training has seen.

    Args:
        run: whose reward steers.
        params: of the reward.
        records: of these requests.
        judge: of what is drawn.
        steered: whether the base is steered, or only the two models compared.

    Returns:
        A row per scale, and the samples of each.
    """
    pair, is_expert = run.pair, records["follows_expert"]
    order = np.argsort(records["request"][~is_expert])
    requests = records["request"][~is_expert][order]
    samples = {"base": records["x_0"][~is_expert][order]}
    samples |= {
        f"reward x {scale:g}": steer(run, params, requests, scale)
        for scale in (run.config.audit.scales if steered else ())
    }
    theirs = np.argsort(records["request"][is_expert])
    samples["expert"] = records["x_0"][is_expert][theirs]
    avoided = pair.avoided
    asked = np.zeros(len(requests), bool) if avoided is None else avoided[requests]
    rows = [row(run, name, x, asked, judge) for name, x in samples.items()]
    return rows, {f"steered {name}": x for name, x in samples.items()}


def row(
    run: Run, name: str, x_0: np.ndarray, asked: np.ndarray, judge: Judge
) -> dict[str, Any]:
    """What the judge finds among samples, and how they lie to real preferred pictures.

    Args:
        run: whose samples they are.
        name: of the row.
        x_0: the samples.
        asked: whether a sample's request asks for what is to be avoided.
        judge: of what is drawn.
    """
    resamples = run.config.audit.resamples
    drawn = judge(x_0) > 0
    share = lambda x: list(
        measures.bootstrap(lambda x: float(x.mean()), (x,), resamples=resamples)
    )
    found: dict[str, Any] = {"name": name, "requests": int(len(x_0))}
    if asked.any():
        found["avoided, asked for"] = share(drawn[asked])
    if not asked.all():
        found["avoided, not asked for"] = share(drawn[~asked])
    audience = run.pair.audience
    enough = min((~asked).sum(), 0 if audience is None else audience.preferred.sum())
    if audience is not None and enough >= LEAST:
        flat = lambda x: x.reshape(len(x), -1)
        real, own = flat(audience.images[audience.preferred]), flat(x_0[~asked])
        # Equal numbers: precision and recall depend on them.
        count = min(len(real), len(own), MOST)
        real, own = real[:count], own[:count]
        distance = measures.halves(measures.kernel_distance, real, own)
        seen = [
            np.clip(
                measures.halves(
                    lambda a, b, i=i: measures.precision_recall(a, b)[i],
                    real,
                    own,
                ),
                0,
                1,
            ).tolist()
            for i in range(2)
        ]
        found |= {
            "kernel distance": list(distance),
            "precision": seen[0],
            "recall": seen[1],
        }
    return found
