"""What a card says about its reward, measured on samples no one trained on."""

import io
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffreward import files, measures
from diffreward.data import map_batches
from diffreward.report.canvas import Figure
from diffreward.reward import (
    Pair,
    Reward,
    agreement,
    conservativity,
    paired_values,
    score_samples,
    unexplainable_by_level,
)
from diffreward.reward.metrics import variance_by_level

CHUNK = 64
"""Samples per compiled call."""


class Findings(NamedTuple):
    """Measures with intervals, what they mean for use, and the numbers of the figure."""

    measures: dict[str, Any]
    limits: list[str]
    rewards: Float[np.ndarray, " samples"]
    log_ratios: Float[np.ndarray, " samples"]
    units: str
    """Of the rewards."""

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
        right.set(xlabel=f"reward ({self.units})", ylabel="training-free log ratio (nats)")
        value = self.measures["agreement_correlation"][0]
        right.set_title(f"correlation {value:.2f}")
        picture = io.BytesIO()
        figure.savefig(picture, dpi=120, format="png")
        files.write_bytes(folder / "measures.png", picture.getvalue())
        return folder / "measures.png"


def measure(
    reward: Reward,
    pair: Pair,
    x_0: Float[np.ndarray, "samples ..."],
    group: np.ndarray,
    *,
    base: np.ndarray | None = None,
    expert: np.ndarray | None = None,
    pinned: Bool[Array, "..."] | None = None,
    seed: int = 0,
) -> Findings:
    """Measures a reward against its pair.

    Args:
        reward: an extracted reward.
        pair: the two models.
        x_0: held-out clean samples in the pair's coordinates.
        group: episode of every sample; intervals resample groups.
        base: samples of the base in data units, to measure the ranking.
        expert: the same of the expert.
        pinned: conditioned entries.
        seed: of noises and resampling.
    """
    keys = jax.random.split(jax.random.key(seed), len(x_0) + 1)

    def one(key: Array, x: Array) -> tuple:
        residual, signal = variance_by_level(reward.reward_fn, pair, key, x, pinned=pinned)
        values = paired_values(reward.reward_fn, pair, key, x, pinned=pinned, num_noises=4)
        return residual, signal, *values

    parts = map_batches(jax.jit(jax.vmap(one)), min(CHUNK, len(x_0)), keys[1:], x_0)
    residual, signal, rewards, log_ratios = parts
    sums = _by_group(group, residual.sum(1), signal.sum(1))
    fvu = measures.bootstrap(lambda r, s: r.sum() / s.sum(), tuple(sums), seed=seed)
    means = [
        m / c
        for m, c in zip(
            _by_group(group, rewards, log_ratios),
            _by_group(group, *[np.ones(len(group))] * 2),
            strict=True,
        )
    ]
    agree = agreement(*means, seed=seed)
    report = conservativity(pair, keys[0], jnp.asarray(x_0[:CHUNK]), pinned=pinned)
    bound = unexplainable_by_level(pair, keys[0], jnp.asarray(x_0), pinned=pinned)
    found: dict[str, Any] = {
        "samples": len(x_0),
        "groups": len(sums[0]),
        "fraction_of_variance_unexplained": list(fvu),
        "agreement_correlation": list(agree.correlation),
        "agreement_slope": list(agree.slope),
        "agreement_rank_correlation": list(agree.rank_correlation),
        "explained_by_level": (1 - residual.sum(0) / signal.sum(0)).tolist(),
        "curl_by_level": np.asarray(report.curl).tolist(),
        "unexplainable_by_level": np.asarray(bound).tolist(),
    }
    if base is not None and expert is not None:
        scores = [
            score_samples(reward, x, seed=seed, as_="ranking") for x in (expert, base)
        ]
        found["auroc"] = list(measures.auroc(*scores, seed=seed))
    return Findings(found, limits(found), rewards, log_ratios, reward.units)


def limits(found: dict[str, Any]) -> list[str]:
    """What the measures forbid, in sentences."""
    said = []
    fvu = found["fraction_of_variance_unexplained"][0]
    if fvu > 0.1:
        said.append(
            f"The gradient leaves {fvu:.0%} of the difference of the models unexplained: "
            "steering at scale 1 does not reproduce the expert."
        )
    least = float(np.nanmax(found["unexplainable_by_level"]))
    if least > 0.05:
        said.append(
            f"No reward can explain {least:.0%} or more of the difference of the models at "
            "the worst noise level."
        )
    curl = float(np.nanmax(found["curl_by_level"]))
    if curl > 0.05:
        said.append(
            "The difference of the models is no gradient: at the worst noise level "
            f"{curl:.0%} of its Jacobian is antisymmetric. That is no share of the "
            "difference; a reward may still explain most of it."
        )
    slope = found["agreement_slope"][0]
    if not 0.8 < slope < 1.25:
        said.append(
            f"Values are not calibrated: log density ratios grow {slope:.2g} times as fast."
        )
    if "auroc" not in found:
        said.append("Ranking was not measured: no samples of the expert were given.")
    said.append("Nothing is known of samples unlike the data named under provenance.")
    return said


def _by_group(group: np.ndarray, *columns: np.ndarray) -> list[np.ndarray]:
    """Sums per group."""
    index = np.unique(group, return_inverse=True)[1]
    return [np.bincount(index, column) for column in columns]
