"""What learned rewards are compared with: classifiers, preferences and true returns.

Each loss is that of one batch; ``value_fn`` is what is learned, of (x_t, t).
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from diffreward.diffusion import Schedule
from diffreward.learn.noise import noise, noise_at
from diffreward.types import AnyArray, Mask, Metrics, PRNGKey, RewardFn, Scalar


def classification(
    value_fn: RewardFn,
    schedule: Schedule,
    key: PRNGKey,
    x_0: Float[AnyArray, "batch ..."],
    pinned: Mask | None = None,
) -> tuple[Scalar, Metrics]:
    """Cross entropy of a logit that tells noised expert samples from the base's.

    The first half of the batch is the base's. With equal numbers of both the minimum is
    log p_expert / p_base at every level (Goodfellow et al., 2014, proposition 1). Nuti et
    al. (2023) see unequal classes and steer along the sigmoid.
    """
    x_t, t, _ = noise(schedule, key, x_0, pinned)
    logit = jax.vmap(value_fn)(x_t, t)
    label = jnp.repeat(jnp.arange(2.0), x_0.shape[0] // 2)
    value = optax.sigmoid_binary_cross_entropy(logit, label)
    accuracy = (logit > 0) == (label > 0)
    return value.mean(), {"accuracy": accuracy.mean()}


def preference(
    value_fn: RewardFn,
    schedule: Schedule,
    key: PRNGKey,
    preferred: Float[AnyArray, "batch ..."],
    other: Float[AnyArray, "batch ..."],
    pinned: Mask | None = None,
) -> tuple[Scalar, Metrics]:
    """Minus the log probability that the preferred samples are preferred.

    The sigmoid of the difference of rewards (Christiano et al., 2017, equation 1), both
    samples noised to one level.
    """
    x_t, t, _ = noise(schedule, key, preferred, pinned)
    eps = jax.random.normal(jax.random.fold_in(key, 1), x_t.shape)
    worse = noise_at(schedule, other, t, eps, pinned)
    margin = jax.vmap(value_fn)(x_t, t) - jax.vmap(value_fn)(worse, t)
    return jax.nn.softplus(-margin).mean(), {"accuracy": (margin > 0).mean()}


def regression(
    value_fn: RewardFn,
    schedule: Schedule,
    key: PRNGKey,
    x_0: Float[AnyArray, "batch ..."],
    target: Float[AnyArray, " batch"],
    pinned: Mask | None = None,
) -> tuple[Scalar, Metrics]:
    """Mean squared error of a value of noised samples (Janner et al., 2022, section 3.3).

    Its minimum is the mean target of all clean samples behind x_t.
    """
    x_t, t, _ = noise(schedule, key, x_0, pinned)
    error = jnp.square(jax.vmap(value_fn)(x_t, t) - target)
    return error.mean(), {"r2": 1 - error.mean() / jnp.var(target)}
