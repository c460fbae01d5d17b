"""Extractors against a known truth: what they are given, and how far off they are."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.stats import rankdata

from diffreward.data import laws
from diffreward.data.pairs import KnownPair
from diffreward.diffusion import Schedule, free_entries, hold, pin, q_sample
from diffreward.extract.conditional import KnownConditionalPair
from diffreward.extract.source import Preferences, Source
from diffreward.reward import Pair
from diffreward.types import EpsFn, Mask, PRNGKey, RewardFn

CHUNK = 16
"""Samples measured at once; bounds the memory."""


Known = KnownPair | KnownConditionalPair


def exact_pair(known: Known, schedule: Schedule) -> Pair:
    """Exact models of both laws."""
    if isinstance(known, KnownConditionalPair):
        return known.exact_pair(schedule)

    def model(law: laws.Mixture) -> EpsFn:
        return lambda x_t, t: laws.eps(law, x_t, schedule.alpha_bar[t])

    return Pair(model(known.base), model(known.expert), schedule)


def exact_source(known: Known, schedule: Schedule, key: PRNGKey, count: int) -> Source:
    """Exact models, ``count`` samples of each law, their true returns, and preferences.

    The return is the clean log ratio; of two random samples the better is preferred with
    the probability of Bradley & Terry (1952).
    """
    base_key, expert_key, order_key, choice_key = jax.random.split(key, 4)
    base = known.sample("base", base_key, count)
    expert = known.sample("expert", expert_key, count)
    x_0 = jnp.concatenate([base, expert])
    returns = jax.vmap(lambda x: known.reward(x, jnp.ones(())))(x_0)
    i, j = jax.random.permutation(order_key, len(x_0)).reshape(2, -1)
    first = jax.random.bernoulli(choice_key, jax.nn.sigmoid(returns[i] - returns[j]))
    better, worse = jnp.where(first, i, j), jnp.where(first, j, i)
    return Source(
        pair=exact_pair(known, schedule),
        base=base,
        expert=expert,
        returns=returns,
        preferences=Preferences(x_0[better], x_0[worse]),
    )


class Comparison(NamedTuple):
    """A reward beside the true one at noised samples, per sample and level."""

    gradient: Float[np.ndarray, "count num_steps ..."]
    """grad rho times sigma / sqrt(alpha_bar), the root of the score preset's weight."""
    score: Float[np.ndarray, "count num_steps ..."]
    """The true relative score, times the same."""
    value: Float[np.ndarray, "count num_steps"]
    truth: Float[np.ndarray, "count num_steps"]


def compare(
    reward_fn: RewardFn,
    true_fn: RewardFn,
    schedule: Schedule,
    key: PRNGKey,
    x_0: Float[Array, "count ..."],
    pinned: Mask | None = None,
) -> Comparison:
    """Evaluates two rewards and their gradients at every level of clean samples.

    Args:
        reward_fn: to be judged.
        true_fn: exact relative reward.
        schedule: noise levels.
        key: of the noises.
        x_0: clean samples.
        pinned: conditioned entries: they stay clean, and no gradient along them counts.
    """

    def level(x_0: Array, t: Array, key: Array) -> tuple:
        x_t = q_sample(schedule, x_0, t, jax.random.normal(key, x_0.shape))
        x_t = pin(x_t, hold(pinned, x_0))
        value, gradient = jax.value_and_grad(reward_fn)(x_t, t)
        truth, score = jax.value_and_grad(true_fn)(x_t, t)
        root = schedule.sigma[t] / schedule.sqrt_alpha_bar[t]
        free = free_entries(x_0.shape, pinned)
        weighted = (jnp.where(free, root * g, 0.0) for g in (gradient, score))
        return *weighted, value, truth

    def one(args: tuple[Array, Array]) -> tuple:
        levels = jnp.arange(schedule.num_steps)
        keys = jax.random.split(args[1], schedule.num_steps)
        return jax.vmap(level, in_axes=(None, 0, 0))(args[0], levels, keys)

    run = jax.jit(lambda x, k: jax.lax.map(one, (x, k), batch_size=CHUNK))
    return Comparison(*map(np.asarray, run(x_0, jax.random.split(key, len(x_0)))))


class Accuracy(NamedTuple):
    """How far a reward is from the true one; 0, 0 and 1 are perfect."""

    gradient_error: float
    """Root of E w ||grad rho - h||^2 / E w ||h||^2 over levels and samples."""
    gradient_error_se: float
    """Standard error of that root, over samples."""
    value_error: float
    """Root mean squared error over the truth's spread, both centred per level and, of a
    conditional reward, per context: no gradient tells what a context is worth."""
    rank_correlation: float
    """Spearman's of these, mean over levels."""


def accuracy(
    found: Comparison,
    levels: slice = slice(None),
    context: Int[np.ndarray, " count"] | None = None,
) -> Accuracy:
    """Summary of a comparison.

    Args:
        found: a reward beside the true one.
        levels: all by default.
        context: number of every sample's context; by default all have the same.
    """
    gradient, score, value, truth = (np.asarray(x[:, levels], np.float64) for x in found)
    squares = lambda x: np.square(x).reshape(len(x), -1).sum(1)
    residual, signal = squares(gradient - score), squares(score)
    ratio = residual.sum() / signal.sum()
    # The ratio of two means varies as the mean of what each sample adds to it.
    spread = np.std(residual - ratio * signal, ddof=1) / np.sqrt(len(signal))
    root = float(np.sqrt(ratio))
    error = spread / signal.mean() / (2 * max(root, 1e-12))
    context = np.zeros(len(value), int) if context is None else context
    value, truth = (_centred(x, context) for x in (value, truth))
    off = np.square(value - truth).sum() / np.square(truth).sum()
    return Accuracy(root, float(error), float(np.sqrt(off)), _spearman(value, truth))


def _centred(x: np.ndarray, context: np.ndarray) -> np.ndarray:
    """Columns less their mean over the rows of the same context."""
    index = np.unique(context, return_inverse=True)[1]
    sums = np.stack([np.bincount(index, column) for column in x.T], 1)
    return x - (sums / np.bincount(index)[:, None])[index]


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Mean rank correlation of the columns; 0 for a constant one."""
    x, y = (r - r.mean(0) for r in (rankdata(x, axis=0), rankdata(y, axis=0)))
    size = np.sqrt(np.square(x).sum(0) * np.square(y).sum(0))
    return float(np.mean((x * y).sum(0) / np.where(size, size, 1)))
