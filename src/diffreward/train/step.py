"""One optimiser step, and the compiled run of many of them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import DTypeLike

from diffreward.train.settings import Members, Numerics
from diffreward.train.sharding import constrain_batch
from diffreward.train.state import MEMBER_AXES, Task, TrainState
from diffreward.types import Metrics, Params, PRNGKey

TrainStep = Callable[[TrainState, Any, PRNGKey, Any], tuple[TrainState, Metrics]]


def make_train_step(
    loss: Callable[..., tuple[jax.Array, Metrics]],
    tx: optax.GradientTransformation,
    numerics: Numerics,
) -> TrainStep:
    """Builds ``(state, frozen, key, batch) -> (state, metrics)``.

    Args:
        loss: maps (params, frozen, key, batch) to a scalar and a dict of metrics.
        tx: optimiser; it sees float32 gradients and float32 parameters.
        numerics: decay of the average, slices of the batch and dtype of the loss.

    Returns:
        The step. Its metrics are those of the loss and ``loss``, ``grad_norm`` and
        ``finite``, a flag that is False when either of these two is not a number.
    """

    def cast_loss(params: Params, frozen: Any, key: PRNGKey, batch: Any):
        if numerics.compute_dtype is not None:
            params = _cast_floats(params, numerics.compute_dtype)
        value, metrics = loss(params, frozen, key, batch)
        return value.astype(jnp.float32), metrics

    grad_fn = jax.value_and_grad(cast_loss, has_aux=True)
    if numerics.accumulate > 1:
        grad_fn = _in_slices(grad_fn, numerics.accumulate)

    def train_step(
        state: TrainState, frozen: Any, key: PRNGKey, batch: Any
    ) -> tuple[TrainState, Metrics]:
        (value, metrics), grads = grad_fn(state.params, frozen, key, batch)
        # Optax raises floats to the power of its integer counters.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)

        n = state.step.astype(jnp.float32)
        decay = jnp.minimum(numerics.ema_decay, (1 + n) / (10 + n))
        ema_params = optax.incremental_update(params, state.ema_params, 1 - decay)

        grad_norm = optax.tree.norm(grads)
        finite = jnp.isfinite(value) & jnp.isfinite(grad_norm)
        metrics = {**metrics, "loss": value, "grad_norm": grad_norm, "finite": finite}
        return TrainState(state.step + 1, params, ema_params, opt_state), metrics

    return train_step


def make_dispatch(
    task: Task,
    tx: optax.GradientTransformation,
    numerics: Numerics,
    members: Members,
    *,
    mesh: jax.sharding.Mesh,
    shardings: TrainState,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Compiles ``(state, key, data, frozen, length=n) -> (state, metrics)``: n steps.

    The randomness of a step is a function of (key, step) alone, so a resumed run draws
    what an unbroken run draws. Member i uses ``fold_in(fold_in(key, step), i)``, and a
    run without a population is member 0. The old state is donated.

    Args:
        task: what is trained.
        tx: optimiser.
        numerics: see `make_train_step`.
        members: trained side by side by one ``vmap``.
        mesh: devices; see `make_mesh`.
        shardings: where every array of the state lives.

    Returns:
        The compiled function; every metric is stacked over the n steps first.
    """
    train_step = make_train_step(task.loss, tx, numerics)

    def member_step(state: TrainState, data: Any, frozen: Any, key: PRNGKey):
        draw_key, loss_key = jax.random.split(key)
        batch = constrain_batch(task.draw(data, draw_key), mesh)
        return train_step(state, frozen, loss_key, batch)

    def step(state: TrainState, data: Any, frozen: Any, key: PRNGKey):
        if members.population is None:
            return member_step(state, data, frozen, jax.random.fold_in(key, 0))
        indices = jnp.arange(members.population)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, indices)
        return jax.vmap(
            member_step,
            in_axes=(MEMBER_AXES, members.data_axes, members.frozen_axes, 0),
            out_axes=(MEMBER_AXES, 0),
        )(state, data, frozen, keys)

    def dispatch(state: TrainState, key: PRNGKey, data: Any, frozen: Any, *, length: int):
        def body(state: TrainState, _: None) -> tuple[TrainState, Metrics]:
            return step(state, data, frozen, jax.random.fold_in(key, state.step))

        return jax.lax.scan(body, state, None, length=length)

    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.jit(
        dispatch,
        static_argnames="length",
        donate_argnames="state",
        out_shardings=(shardings, replicated),
    )


def _cast_floats(tree: Params, dtype: DTypeLike) -> Params:
    floating = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
    return jax.tree.map(lambda x: x.astype(dtype) if floating(x) else x, tree)


def _in_slices(grad_fn: Callable, count: int) -> Callable:
    """Averages a gradient function over ``count`` slices of the batch."""

    def cut(x: jax.Array) -> jax.Array:
        # Slice i takes every count-th example: an axis sharded over devices then stays
        # where it is, whereas contiguous slices would have to move between devices.
        return x.reshape(x.shape[0] // count, count, *x.shape[1:]).swapaxes(0, 1)

    def averaged(params: Params, frozen: Any, key: PRNGKey, batch: Any):
        slices = jax.tree.map(cut, batch)

        def add(total: Any, item: tuple[jax.Array, Any]) -> tuple[Any, None]:
            index, part = item
            out = grad_fn(params, frozen, jax.random.fold_in(key, index), part)
            return jax.tree.map(lambda t, x: t + x / count, total, out), None

        first = jax.tree.map(lambda x: x[0], slices)
        shapes = jax.eval_shape(grad_fn, params, frozen, key, first)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return jax.lax.scan(add, zeros, (jnp.arange(count), slices))[0]

    return averaged
