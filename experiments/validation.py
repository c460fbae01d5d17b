"""What is measured on held-out data while a stage trains."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffreward import data as d
from diffreward import train
from diffreward.learn import Denoiser, RewardModel, denoising_task
from diffreward.reward import metrics
from diffreward.types import Params

EVALUATION_WINDOWS = 128
"""Held-out windows per class."""


def held_out(windows: d.Windows, members: int, horizon: int) -> dict[str, np.ndarray]:
    """A fixed batch of windows: (members, batch, ...) or (batch, ...) for 0 members."""
    key = jax.random.key(0)
    one = lambda w: d.draw(w, key, EVALUATION_WINDOWS, horizon)
    draw = jax.vmap(one, in_axes=(d.MEMBER_AXES,)) if members else one
    return jax.device_get(jax.jit(draw)(windows))


def denoising_error(
    model: Denoiser, windows: d.Windows, axes: Any = None
) -> Callable[[train.TrainState], dict[str, Any]]:
    """Validation loss of the averaged parameters on a fixed batch."""
    members = 0 if axes is None else len(windows.count)
    task = denoising_task(model, EVALUATION_WINDOWS)
    batch = held_out(windows, members, model.shape[0])
    loss = lambda p, b: task.loss(p, None, jax.random.key(1), b)[0]
    error = jax.jit(jax.vmap(loss) if members else loss)
    return lambda state: {"loss": error(jax.device_get(state.ema_params), batch)}


def held_out_metrics(
    task: train.Task,
    data: Any,
    frozen: Any = None,
    members: bool = True,
    axes: Any = None,
) -> Callable[[train.TrainState], dict[str, Any]]:
    """Loss and metrics of every member on one fixed batch of validation data.

    ``axes`` are those of ``data`` where members have data of their own.
    """
    draw = task.draw if axes is None else jax.vmap(task.draw, in_axes=(axes, None))
    batch = jax.device_get(jax.jit(draw)(data, jax.random.key(0)))
    loss = lambda params, batch: task.loss(params, frozen, jax.random.key(1), batch)
    of_members = jax.vmap(loss, in_axes=(0, None if axes is None else 0))
    measure = jax.jit(of_members if members else loss)

    def evaluate(state: train.TrainState) -> dict[str, Any]:
        loss, others = jax.device_get(measure(jax.device_get(state.ema_params), batch))
        return {"loss": loss, **others}

    return evaluate


def fvu_by_level(
    model: Denoiser, reward: RewardModel, frozen: Any, sets: dict[str, Any]
) -> Callable[[train.TrainState], dict[str, Any]]:
    """Held-out fraction of variance unexplained on ``sets``, in all and per noise level.

    Besides, ``time_gradient``: norm of the loss gradient in the reward's time path. A
    reward in score units whose time path gets none cannot learn the noise level. Left out
    of networks none of whose parameters is named after time.
    """
    horizon = model.shape[0]
    members = len(sets["expert"].count)
    base = held_out(sets["base"], 0, horizon)["x_0"]
    others = [held_out(sets[n], members, horizon)["x_0"] for n in sets if n != "base"]
    of_members = np.concatenate(others, axis=1)
    objective = reward.objective
    pinned = model.pinned if objective.conditioned else None

    def of_member(params: Params, expert_params: Params, x_member: Array) -> tuple:
        x_0 = jnp.concatenate([base, x_member])
        pair = model.pair(frozen["base"], expert_params)

        def variances(params: Params) -> tuple[Array, Array]:
            one = lambda x, k: metrics.variance_by_level(
                reward.reward_fn(params), pair, k, x, objective=objective, pinned=pinned
            )
            keys = jax.random.split(jax.random.key(2), x_0.shape[0])
            residual, signal = jax.vmap(one)(x_0, keys)
            return residual.sum(0), signal.sum(0)

        residual, signal = variances(params)
        gradient = jax.grad(lambda p: variances(p)[0].sum())(params)
        return residual, signal, gradient

    def one_member(args: tuple) -> tuple:
        residual, signal, gradient = of_member(*args)
        return residual, signal, _time_norm(gradient)

    measure = jax.jit(lambda *args: jax.lax.map(one_member, args))

    def evaluate(state: train.TrainState) -> dict[str, Any]:
        params = jax.device_get(state.ema_params)
        args = (params, frozen["expert"], of_members)
        residual, signal, norm = jax.device_get(measure(*args))
        if objective.activation != "leaky_relu" and np.any(norm == 0):
            raise ValueError(
                "the time path of the reward receives no gradient; use a network with "
                "smooth activations"
            )
        levels = residual.sum(0) / signal.sum(0)
        return {
            "fvu": residual.sum(1) / signal.sum(1),
            **{f"fvu_level/{t:03d}": float(v) for t, v in enumerate(levels)},
            **({} if np.isnan(norm).all() else {"time_gradient": norm}),
        }

    return evaluate


def _time_norm(gradient: Params) -> Array:
    """Norm over the parameters whose path names time or its modulation; NaN for none."""
    leaves = jax.tree_util.tree_leaves_with_path(gradient)
    chosen = [
        jnp.sum(jnp.square(leaf))
        for path, leaf in leaves
        if any(name in jax.tree_util.keystr(path) for name in ("time", "film"))
    ]
    return jnp.sqrt(sum(chosen)) if chosen else jnp.full((), jnp.nan)
