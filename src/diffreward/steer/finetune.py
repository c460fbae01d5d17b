"""Fine-tuning the base by the gradient of a reward through its own sampling chain.

DRaFT-K (Clark et al., 2024) and AlignProp (Prabhudesai et al., 2023): the sampler runs
as usual, the reward of the clean sample is differentiated through the last K steps, and
every step is rematerialised, so that memory does not grow with the network times K.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffreward.diffusion import Condition, Schedule, ancestral_mean, draw_noise, hold, pin
from diffreward.steer.stepwise import ValueFn
from diffreward.types import EpsFn, Metrics, Params, PRNGKey, Sample, Scalar, Step


def reward_through_chain(
    eps_fn: EpsFn,
    base_eps_fn: EpsFn,
    value_fn: ValueFn,
    schedule: Schedule,
    key: PRNGKey,
    shape: tuple[int, ...],
    *,
    last_steps: int,
    condition: Condition | None = None,
    remat: bool = True,
) -> tuple[Scalar, Scalar, Sample]:
    """Reward of one ancestral sample, differentiable through its last steps.

    Args:
        eps_fn: noise prediction that is fine-tuned.
        base_eps_fn: the frozen one it started from.
        value_fn: reward of a clean sample.
        schedule: noise schedule.
        key: key of the sample; drawn as ``diffusion.sample`` draws it.
        shape: of the sample.
        last_steps: K, from 1 to the number of levels; earlier steps run without
            gradient.
        condition: entries to hold.
        remat: recompute each step on the way back instead of storing it.

    Returns:
        The reward, the KL of the last K steps to the base's at the same x_t (the sum of
        ``||mean - mean_base||^2 / 2 variance``; level 0, which has no noise, is given the
        variance of level 1), and the sample.

    Raises:
        ValueError: if K is out of range, or the chain stops before noise.
    """
    num_steps = schedule.num_steps
    if not 1 <= last_steps <= num_steps:
        raise ValueError(f"last_steps must be in [1, {num_steps}], got {last_steps}")
    start_key, chain_key = jax.random.split(key)

    def step(x_t: Array, t: Step) -> tuple[Array, Array]:
        mean, mean_base = (
            ancestral_mean(fn, schedule, x_t, t) for fn in (eps_fn, base_eps_fn)
        )
        variance = schedule.posterior_variance[jnp.maximum(t, min(1, num_steps - 1))]
        gap = mean - mean_base
        if condition is not None:
            gap = jnp.where(condition.pinned, 0.0, gap)
        noise = jax.random.normal(jax.random.fold_in(chain_key, t), x_t.shape)
        moved = mean + jnp.sqrt(schedule.posterior_variance[t]) * noise
        return pin(moved, condition), jnp.sum(jnp.square(gap)) / (2 * variance)

    def free_step(x_t: Array, t: Step) -> tuple[Array, None]:
        return step(x_t, t)[0], None

    levels = jnp.arange(num_steps - 1, -1, -1)
    x = pin(draw_noise(schedule, start_key, shape), condition)
    x = jax.lax.scan(free_step, x, levels[: num_steps - last_steps])[0]
    # Nothing of the chain above reaches the gradient, however it depends on parameters.
    x = jax.lax.stop_gradient(x)
    body = jax.checkpoint(step) if remat else step
    x_0, kl = jax.lax.scan(body, x, levels[num_steps - last_steps :])
    return value_fn(x_0), kl.sum(), x_0


def make_finetune_loss(
    model: Callable[[Params], EpsFn],
    value: Callable[[Any], ValueFn],
    schedule: Schedule,
    shape: tuple[int, ...],
    *,
    last_steps: int,
    kl_weight: float = 0.0,
    pinned: Array | None = None,
    remat: bool = True,
) -> Callable[[Params, Any, PRNGKey, Any], tuple[Scalar, Metrics]]:
    """Builds the loss of a training task: minus reward plus weighted KL to the base.

    Args:
        model: noise prediction under parameters.
        value: reward of clean samples under the frozen reward's parameters.
        schedule: noise schedule.
        shape: of one sample.
        last_steps: K of :func:`reward_through_chain`.
        kl_weight: nats of reward that a nat of divergence costs.
        pinned: conditioned entries, held at those of the batch.
        remat: see :func:`reward_through_chain`.

    Returns:
        ``(params, frozen, key, batch) -> (loss, metrics)``; ``frozen`` holds the
        parameters of the ``base`` and of the ``reward``; ``batch["x_0"]`` are samples
        (batch, ...) of which only the pinned entries are read.
    """

    def loss(
        params: Params, frozen: Any, key: PRNGKey, batch: Any
    ) -> tuple[Scalar, Metrics]:
        def one(sample_key: Array, x_0: Array) -> tuple[Array, Array]:
            reward, kl, _ = reward_through_chain(
                model(params),
                model(frozen["base"]),
                value(frozen["reward"]),
                schedule,
                sample_key,
                shape,
                last_steps=last_steps,
                condition=hold(pinned, x_0),
                remat=remat,
            )
            return reward, kl

        keys = jax.random.split(key, batch["x_0"].shape[0])
        reward, kl = (x.mean() for x in jax.vmap(one)(keys, batch["x_0"]))
        return kl_weight * kl - reward, {"reward": reward, "kl": kl}

    return loss
