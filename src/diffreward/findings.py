"""What a reward is good for, measured on samples that no one trained on.

The measures, and what they forbid, that a card has of its reward.
"""

import io
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffreward import files, measures
from diffreward.arguments import samples_of
from diffreward.data import map_batches, normalise
from diffreward.diffusion import hold, sample
from diffreward.report.canvas import Figure
from diffreward.reward import (
    Pair,
    Reward,
    agreement,
    curl_by_level,
    paired_values,
    said_of_early_end,
    score_samples,
    unexplainable_by_level,
)
from diffreward.reward.metrics import variance_by_level

CHUNK = 64
"""Samples per compiled call."""
EVALUATIONS = 50
"""Of the base per draw under a condition, where it has more levels."""
LEAST = 3
"""Groups, for an interval."""


class Findings(NamedTuple):
    """Measures with intervals, what they mean for use, and the numbers of the figure."""

    measures: dict[str, Any]
    limits: list[str]
    rewards: Float[np.ndarray, " samples"]
    log_ratios: Float[np.ndarray, " samples"]
    units: str
    """Of the rewards."""
    conditioned: bool = False
    """Whether rewards and ratios are differences from a draw of the base under the same
    condition."""

    def draw(self, folder: Path) -> Path:
        """Explained share and curl per level; reward against log ratio."""
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        explained = self.measures["explained_by_level"]
        left.plot(explained, label="explained by the reward")
        left.plot(self.measures["curl_by_level"], label="curl of the Jacobian")
        left.plot(
            self.measures["unexplainable_by_level"], label="no reward explains, at least"
        )
        left.set(xlabel="noise level", ylabel="share", ylim=(-0.02, 1.02))
        left.legend(frameon=False)
        right.plot(self.rewards, self.log_ratios, ".", ms=3)
        above = ", above a base draw" if self.conditioned else ""
        right.set(
            xlabel=f"reward ({self.units}){above}",
            ylabel=f"training-free log ratio (nats){above}",
        )
        if "agreement_correlation" in self.measures:
            right.set_title(f"correlation {self.measures['agreement_correlation'][0]:.2f}")
        picture = io.BytesIO()
        figure.savefig(picture, dpi=120, format="png")
        files.write_bytes(folder / "measures.png", picture.getvalue())
        return folder / "measures.png"


def measure(
    reward: Reward,
    pair: Pair,
    samples: Any,
    *,
    base: Any = None,
    expert: Any = None,
    groups: Any = None,
    seed: int = 0,
) -> Findings:
    """Measures a reward against its pair, on samples that no one trained on.

    How much of the difference of the models its gradient leaves unexplained, how its
    values agree with the training-free log ratio, what no reward explains, and, with
    samples of the expert, how well it ranks. A reward of samples under a condition
    (pinned entries, a context) is free up to a function of that condition: every sample
    is then held against a draw of the base under its own condition, and what is compared
    are the differences.

    Args:
        reward: an extracted reward.
        pair: the two models.
        samples: as ``score`` takes them.
        base: the same, of the base, to measure the ranking; by default ``samples``.
            Not read where there are conditions.
        expert: the same, of the expert.
        groups: what every one of ``samples`` belongs to, such as its episode; intervals
            resample groups. By default each is its own.
        seed: of noises, draws and resampling.

    Raises:
        ValueError: for a reward of another pair or shape, or samples that do not fit.
    """
    rows = _rows("samples", samples, reward, pair)
    group = np.arange(len(rows)) if groups is None else np.asarray(groups)
    if group.shape != (len(rows),) or len(np.unique(group)) < LEAST:
        raise ValueError(
            f"groups must name a group per sample, at least {LEAST} in all; got "
            f"{len(np.unique(group))} in shape {group.shape} for {len(rows)} samples"
        )
    pinned = None if reward.pinned is None else jnp.asarray(reward.pinned)
    keys = jax.random.split(jax.random.key(seed), len(rows) + 1)

    def one(key: Array, x: Array) -> tuple:
        residual, signal = variance_by_level(reward.reward_fn, pair, key, x, pinned=pinned)
        values = paired_values(reward.reward_fn, pair, key, x, pinned=pinned, num_noises=4)
        return residual, signal, *values

    ask = jax.jit(jax.vmap(one))
    parts = map_batches(ask, min(CHUNK, len(rows)), keys[1:], rows)
    residual, signal, rewards, log_ratios = parts
    sums = _by_group(group, residual.sum(1), signal.sum(1))
    fvu = measures.bootstrap(lambda r, s: r.sum() / s.sum(), tuple(sums), seed=seed)
    curls = jax.jit(jax.vmap(lambda key, x: curl_by_level(pair, key, x, pinned=pinned)))
    curl, total = (part.mean(0) for part in curls(keys[1:][:CHUNK], rows[:CHUNK]))
    bound = unexplainable_by_level(pair, keys[0], jnp.asarray(rows), pinned=pinned)
    found: dict[str, Any] = {
        "samples": len(rows),
        "groups": len(sums[0]),
        "fraction_of_variance_unexplained": list(fvu),
        "explained_by_level": (1 - residual.sum(0) / signal.sum(0)).tolist(),
        "curl_by_level": np.asarray(curl / total).tolist(),
        "unexplainable_by_level": np.asarray(bound).tolist(),
    }
    draws = _Draws(reward, pair, seed) if pinned is not None and pinned.any() else None
    if draws is None or pair.schedule.signal_left is None:
        if draws is not None:
            beside = map_batches(ask, min(CHUNK, len(rows)), keys[1:], draws(rows))
            rewards, log_ratios = rewards - beside[2], log_ratios - beside[3]
        count = _by_group(group, np.ones(len(group)))[0]
        means = [total / count for total in _by_group(group, rewards, log_ratios)]
        agree = agreement(*means, seed=seed)
        found |= {
            "agreement_correlation": list(agree.correlation),
            "agreement_slope": list(agree.slope),
            "agreement_rank_correlation": list(agree.rank_correlation),
        }
        if expert is not None:
            good = _rows("expert", expert, reward, pair)
            if draws is None:
                plain = rows if base is None else _rows("base", base, reward, pair)
                scores = [_ranking(reward, x, seed) for x in (good, plain)]
                found["auroc"] = list(measures.auroc(*scores, seed=seed))
            else:
                gap = _ranking(reward, good, seed) - _ranking(reward, draws(good), seed)
                wins = (gap > 0) + 0.5 * (gap == 0)
                share = measures.bootstrap(lambda w: w.mean(), (wins,), seed=seed)
                found["auroc_within_conditions"] = list(share)
    said = limits(found, pair.schedule.signal_left)
    return Findings(found, said, rewards, log_ratios, reward.units, draws is not None)


class _Draws:
    """One draw of the base under the condition of every sample."""

    def __init__(self, reward: Reward, pair: Pair, seed: int) -> None:
        levels = pair.schedule.num_steps
        steps = min(levels, EVALUATIONS)

        def draw(key: Array, x: Array) -> Array:
            return sample(
                pair.base,
                pair.schedule,
                key,
                x.shape,
                condition=hold(reward.pinned, x),
                method="ddpm" if steps == levels else "ddim",
                num_evaluations=steps,
                eta=1.0,
            )

        self.draw, self.seed = jax.jit(jax.vmap(draw)), seed

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        keys = jax.random.split(jax.random.key(self.seed + 1), len(rows))
        return map_batches(self.draw, min(CHUNK, len(rows)), keys, rows)


def _rows(name: str, samples: Any, reward: Reward, pair: Pair) -> np.ndarray:
    """Samples in the coordinates of the pair.

    Raises:
        ValueError: for samples or a pair that are not the reward's.
    """
    if reward.schedule.num_steps != pair.schedule.num_steps:
        raise ValueError(
            f"the reward is of {reward.schedule.num_steps} noise levels, the pair of "
            f"{pair.schedule.num_steps}; measure a reward with the pair it is from"
        )
    rows = samples_of(name, samples, reward.context, reward.shape)
    return np.asarray(
        rows if reward.normaliser is None else normalise(reward.normaliser, rows)
    )


def _ranking(reward: Reward, rows: np.ndarray, seed: int) -> np.ndarray:
    """Mean reward over noise levels, of samples in the coordinates of the pair."""
    own = reward._replace(normaliser=None)
    return score_samples(own, rows, seed=seed, as_="ranking")


def limits(found: dict[str, Any], signal_left: float | None = None) -> list[str]:
    """What the measures forbid, in sentences.

    Args:
        found: measures by name.
        signal_left: signal-to-noise ratio of a chain that stops before noise.
    """
    said = [] if signal_left is None else [said_of_early_end(signal_left)]
    fvu = found["fraction_of_variance_unexplained"][0]
    if fvu > 0.1:
        said.append(
            f"The gradient leaves {fvu:.0%} of the difference of the models unexplained: "
            "steering at scale 1 does not reproduce the expert."
        )
    least = _worst(found["unexplainable_by_level"])
    if least > 0.05:
        said.append(
            f"No reward can explain {least:.0%} or more of the difference of the models at "
            "the worst noise level."
        )
    curl = _worst(found["curl_by_level"])
    if curl > 0.05:
        said.append(
            "The difference of the models is no gradient: at the worst noise level "
            f"{curl:.0%} of its Jacobian is antisymmetric. That is no share of the "
            "difference; a reward may still explain most of it."
        )
    slope, *_ = found.get("agreement_slope", [None])
    if slope is None:
        said.append(
            "Values were not held against log ratios: under a condition, that needs draws "
            "of the base, which this chain cannot give."
        )
    elif not 0.8 < slope < 1.25:
        said.append(
            f"Values are not calibrated: log density ratios grow {slope:.2g} times as fast."
        )
    if not {"auroc", "auroc_within_conditions"} & {*found}:
        said.append("Ranking was not measured: no samples of the expert were given.")
    said.append("Nothing is known of samples unlike the data named under provenance.")
    return said


def _worst(by_level: list[float]) -> float:
    """Greatest of the levels at which there is a number at all."""
    return max((v for v in by_level if not np.isnan(v)), default=0.0)


def _by_group(group: np.ndarray, *columns: np.ndarray) -> list[np.ndarray]:
    """Sums per group."""
    index = np.unique(group, return_inverse=True)[1]
    return [np.bincount(index, column) for column in columns]
