"""What a reward says of two image models: measured on requests no stage has seen."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffreward import data as d
from diffreward import measures
from diffreward.learn import RecordedState
from diffreward.reward import SCORE
from diffreward.types import Params
from experiments.images import content, scorers, steering
from experiments.images import records as image_records
from experiments.images.build import Run
from experiments.images.judge import Judge, make_judge
from experiments.images.pair import Audience, ImagePair
from experiments.images.scorers import CHUNK, Profile, chain_levels


def held_out_fvu(run: Run, params: Params, records: Any) -> np.ndarray:
    """Fraction of variance unexplained per recorded level, least noise first."""
    rows = run.rows(records)

    @jax.jit
    def sums(chain: Any, t: Array, context: Any) -> Any:
        def one(states: Any, context: Any) -> Any:
            def of_level(row: Any) -> Any:
                state, t = row
                at = RecordedState(t=t, context=context, **state)
                return run.reward.record_loss(params, at)[1]

            return jax.lax.map(of_level, (states, t))

        return jax.tree.map(lambda x: x.sum(0), jax.vmap(one)(chain, context))

    total = {"residual": 0.0, "signal": 0.0}
    for i in range(0, len(records["x_t"]), CHUNK):
        cut = lambda x, i=i: x[i : i + CHUNK]
        chain = {n: jnp.asarray(cut(rows[n]), jnp.float32) for n in image_records.ROWS}
        found = sums(chain, jnp.asarray(rows["t"]), jax.tree.map(cut, rows["context"]))
        total = {k: v + np.asarray(found[k]) for k, v in total.items()}
    return np.asarray(total["residual"] / total["signal"])[::-1]


class Rivals(NamedTuple):
    """What is trained beside the reward, from the same records or from real pictures."""

    classifier: tuple[Any, Params]
    """Of both models' samples."""
    judge: Judge | None
    """Of pictures, where there are any to learn from."""


def train_rivals(run: Run) -> Rivals:
    """Trains what is missing of them."""
    judged = run.pair.judged
    judge = None if judged is None else make_judge(run, judged)
    return Rivals(scorers.train_classifier(run), judge)


def evaluate(
    run: Run, params: Params, rivals: Rivals
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The audit's numbers, and the arrays its pictures are made of."""
    config, pair = run.config, run.pair
    records = image_records.load(run.shards["test"])
    x_0, is_expert = records["x_0"], records["follows_expert"]
    request = records["request"]
    profile = scorers.reward_profile(run, params)
    by_level = profile(x_0, pair.contexts(request) if config.rewards.prompt else ())
    rewards = by_level.mean(1)
    interval = lambda positive, negative: list(
        measures.auroc(positive, negative, resamples=config.audit.resamples)
    )
    fvu = held_out_fvu(run, params, records)
    result: dict[str, Any] = {
        "pair": pair.name,
        "preset": config.rewards.preset,
        "requests": int(len(np.unique(request))),
        "auroc": interval(rewards[is_expert], rewards[~is_expert]),
        "auroc_by_level": [
            measures.mann_whitney(by_level[is_expert, i], by_level[~is_expert, i])
            for i in range(by_level.shape[1])
        ],
        "levels": chain_levels(config, pair),
        "fvu": fvu,
        "base": spread(rewards[~is_expert]),
        "expert": spread(rewards[is_expert]),
        "slices": slice_table(pair, rewards, is_expert, request, config.audit.resamples),
    }
    arrays = {
        "rewards": rewards,
        "is_expert": is_expert,
        "x_0": x_0,
        "request": request,
    }
    nearest = nearest_training(x_0, run.shards["train"])
    result["nearest"] = {
        "to_training": spread(nearest["distance"]),
        "among_training": spread(nearest["typical"]),
    }
    arrays |= {"nearest": nearest["sample"], "nearest_distance": nearest["distance"]}
    if pair.audience is not None and not config.rewards.prompt:
        found, more = of_audience(pair.audience, profile, config.audit.resamples)
        result["audience"], arrays = found, arrays | more
    known = content.groups(run, records)
    if known:
        result["content"] = content.evaluate(
            scores(run, profile, rivals), known, config.audit.resamples
        )
    if rivals.judge is not None:
        result["judge"] = judge_itself(rivals.judge, pair.audience)
        steered = config.rewards.preset == SCORE.name  # its scale 1 is the difference
        rows, samples = steering.evaluate(
            run, params, records, rivals.judge, steered=steered
        )
        result["steering"], arrays = rows, arrays | samples
    return result, arrays


def scores(run: Run, profile: Profile, rivals: Rivals) -> dict[str, Profile]:
    """The reward and its rivals, by name."""
    own = scorers.classifier_profile(run, rivals.classifier)
    found = {"reward": profile, "classifier of samples": own}
    ratio = scorers.ratio_profile(run)
    return found if ratio is None else found | {"log ratio, training-free": ratio}


def judge_itself(judge: Judge, audience: Audience | None) -> dict[str, Any]:
    """How often the judge is right about pictures that it has not seen."""
    if audience is None:
        return {}
    found = judge(audience.images)
    accuracy = measures.balanced_accuracy(
        found[~audience.preferred], found[audience.preferred], threshold=0.0
    )
    return {"balanced_accuracy": list(accuracy), "pictures": len(found)}


def spread(values: np.ndarray) -> dict[str, Any]:
    """Mean, deviation and quartiles."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return {
        "mean": float(values.mean()),
        "deviation": float(values.std()),
        "quartiles": [float(low), float(middle), float(high)],
    }


def slice_table(
    pair: ImagePair,
    rewards: np.ndarray,
    is_expert: np.ndarray,
    request: np.ndarray,
    resamples: int,
) -> list[dict[str, Any]]:
    """Mean reward of both models' samples for every value of every metadata column."""
    rows = []
    mean = lambda x: float(np.mean(x))
    for column, values in d.slices(pair.prompts.columns).items():
        for value, members in values.items():
            here = np.isin(request, members)
            if not (here & is_expert).any():
                continue
            base, expert = rewards[here & ~is_expert], rewards[here & is_expert]
            bootstrap = lambda x: list(measures.bootstrap(mean, (x,), resamples=resamples))
            # Chains of one request start from the same noise: a paired difference.
            rows.append(
                {
                    "column": column,
                    "value": value,
                    "requests": int(len(base)),
                    "base": bootstrap(base),
                    "difference": bootstrap(expert - base),
                }
            )
    return rows


def nearest_training(x_0: np.ndarray, shards: d.Shards) -> dict[str, np.ndarray]:
    """Nearest training sample of every test sample, and how near those are to each other.

    A reward that ranks by memory would like only what it has nearly seen; test samples
    that are as far from the training samples as those are from one another rule it out.
    """
    flat = x_0.reshape(len(x_0), -1)
    best, sample = np.full(len(flat), np.inf), np.zeros_like(x_0)
    first = d.read_shard(shards, 0)["x_0"]
    reference = first.reshape(len(first), -1)
    typical = np.full(len(reference), np.inf)
    for i in range(shards.count):
        seen = d.read_shard(shards, i)["x_0"]
        rows = seen.reshape(len(seen), -1)
        distance = distances(flat, rows)
        nearest = distance.argmin(1)
        found = distance[np.arange(len(flat)), nearest]
        closer = found < best
        best[closer], sample[closer] = found[closer], seen[nearest[closer]]
        among = distances(reference, rows)
        if i == 0:
            np.fill_diagonal(among, np.inf)  # itself
        typical = np.minimum(typical, among.min(1))
    return {"distance": best, "sample": sample, "typical": typical}


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Root mean square difference of every pair of rows."""
    return measures.pairwise_distances(a, b) / np.sqrt(a.shape[1])


def of_audience(
    audience: Audience, profile: Profile, resamples: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Does the reward tell people's own two groups of held-out images apart?"""
    by_level = profile(audience.images, ())
    rewards, good = by_level.mean(1), audience.preferred
    classes = np.unique(audience.labels)
    result = {
        "images": int(len(rewards)),
        "auroc": list(measures.auroc(rewards[good], rewards[~good], resamples=resamples)),
        "auroc_by_level": [
            measures.mann_whitney(by_level[good, i], by_level[~good, i])
            for i in range(by_level.shape[1])
        ],
        "by_class": {
            str(c): {
                "preferred": bool(good[audience.labels == c].all()),
                **spread(rewards[audience.labels == c]),
            }
            for c in classes
        },
    }
    return result, {"audience_rewards": rewards, "audience_images": audience.images}
