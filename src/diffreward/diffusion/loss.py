"""The denoising loss of one trajectory, and how noise levels are drawn."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from diffreward.diffusion.condition import free_entries, hold, pin
from diffreward.diffusion.process import Prediction, from_eps, q_sample
from diffreward.diffusion.schedule import Schedule
from diffreward.types import Mask, Metrics, PRNGKey, Sample, Scalar, Step


def draw_levels(key: PRNGKey, batch_size: int, num_steps: int) -> Int[Array, " batch"]:
    """Uniform noise levels, stratified over the batch.

    One uniform offset shifts a regular grid (Kingma et al. 2021, appendix I.1): each
    level is uniform on its own, and the batch mean of the loss varies less.
    """
    offset = jax.random.uniform(key)
    u = (offset + jnp.arange(batch_size) / batch_size) % 1.0
    return jnp.minimum((u * num_steps).astype(jnp.int32), num_steps - 1)


def denoising_loss(
    predict: Callable[[Array, Array], Array],
    schedule: Schedule,
    x_0: Sample,
    t: Step,
    eps: Sample,
    *,
    prediction: Prediction = "x_0",
    weight: Sample | None = None,
    pinned: Mask | None = None,
) -> tuple[Scalar, Metrics]:
    """Weighted mean squared error of one prediction.

    Args:
        predict: network of (x_t, t) whose output is of kind ``prediction``.
        schedule: noise schedule.
        x_0: clean trajectory.
        t: noise level.
        eps: standard normal noise, shaped like ``x_0``.
        prediction: what the network outputs; the loss is taken in that space.
        weight: weight per entry (action weights, padding); all ones by default.
        pinned: conditioned entries, shown clean and left out of the loss.

    Returns:
        The weighted sum of squared errors over the number of free entries, and the
        unweighted ``mse`` of the same entries.
    """
    x_t = pin(q_sample(schedule, x_0, t, eps), hold(pinned, x_0))
    free = free_entries(x_0.shape, pinned).astype(x_0.dtype)
    # The target follows from the unpinned x_t: eps and x_0 are what was drawn.
    target = from_eps(schedule, prediction, q_sample(schedule, x_0, t, eps), t, eps)
    if prediction == "x_0":
        target = x_0  # the same number without the division by sqrt(alpha_bar)
    error = jnp.square(predict(x_t, t) - target) * free
    weighted = error if weight is None else error * weight
    return weighted.sum() / free.sum(), {"mse": error.sum() / free.sum()}
