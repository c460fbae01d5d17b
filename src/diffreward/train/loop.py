"""The training loop: the only one, shared by every stage."""

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffreward.train import checkpoint, sharding
from diffreward.train.estimate import abstract_batch, estimate
from diffreward.train.record import Recorder, say
from diffreward.train.settings import Loop, Members, Numerics, Placement
from diffreward.train.state import Task, TrainState, init_state
from diffreward.train.step import make_dispatch


class Diverged(RuntimeError):
    """Training met a number that is not finite."""


def optimise(
    task: Task,
    tx: optax.GradientTransformation,
    *,
    data: Any,
    frozen: Any = None,
    steps: int,
    seed: int,
    workdir: str | Path,
    name: str,
    members: Members = Members(),
    numerics: Numerics = Numerics(),
    placement: Placement = Placement(),
    loop: Loop = Loop(),
) -> TrainState:
    """Trains a task for ``steps`` steps, from its last checkpoint if it has one.

    Steps run in dispatches of ``loop.steps_per_dispatch``; logging, evaluation and
    checkpoints happen at the first end of a dispatch at or after each multiple of their
    interval, and at the last step. A row holds the mean of the dispatch it ends. The
    ends of dispatches do not depend on where a run was interrupted, so a resumed run
    ends with the same bits as an unbroken one.

    Args:
        task: what is trained.
        tx: optimiser; see `make_optimiser`.
        data: pytree of arrays the batches are drawn from; or a function of the step that
            a dispatch begins with to such a pytree, for data that do not fit at once. It
            is called again after an interruption, so it must be a function, and should
            return the same object while nothing changes.
        frozen: pytree of arrays the loss reads, such as frozen models.
        steps: number of updates in all.
        seed: source of the initial parameters and of every batch and noise.
        workdir: folder for ``metrics.jsonl``, ``tensorboard/`` and ``checkpoint/``.
        name: stage name, for progress and messages.
        members: trained side by side; a single model by default.
        numerics: decay of the average, slices of the batch and dtype of the loss.
        placement: devices, and how parameters are cut over them.
        loop: how often is logged, saved and evaluated, and who is told.

    Returns:
        The state after ``steps`` steps.

    Raises:
        ValueError: for sizes that do not fit, or a finished run longer than ``steps``.
        CheckpointMismatch: if ``workdir`` holds another run.
        Diverged: at the first loss or gradient that is not finite; the message names
            the stage, the step, the member and the last good checkpoint.
    """
    workdir = Path(workdir)
    population = members.population
    mesh = sharding.make_mesh(1) if placement.mesh is None else placement.mesh
    feed = data if callable(data) else None
    data = feed(0) if feed else data
    batch = abstract_batch(task, data, members)
    sharding.check_batch(batch, mesh, numerics.accumulate)
    init_key, run_key = jax.random.split(jax.random.key(seed))
    init = lambda key: init_state(task.init, tx, key, population)
    abstract = jax.eval_shape(init, init_key)
    places = sharding.state_shardings(
        abstract, mesh, placement.rules, population=population is not None
    )
    run = {"seed": seed, "population": population}

    with checkpoint.open_checkpoints(workdir / "checkpoint") as manager:
        wanted = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            abstract,
            places,
        )
        state = checkpoint.restore(manager, wanted, run)
        if state is None:
            state = jax.jit(init, out_shardings=places)(init_key)
        step = start = int(state.step)
        if start > steps:
            raise ValueError(
                f"{workdir} is already at step {start}, beyond the {steps} asked for; "
                "ask for more steps or use another workdir"
            )
        if start == steps:
            if loop.progress:
                say(f"{name}: already finished at step {steps}")
            return state

        if loop.progress:
            cost = estimate(task, tx, data=data, frozen=frozen, members=members)
            _announce(name, start, steps, cost)
        replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        fed = data
        data, frozen = jax.device_put((data, frozen), replicated)
        dispatch = make_dispatch(task, tx, numerics, members, mesh=mesh, shardings=places)
        with Recorder(
            workdir,
            name,
            start=start,
            steps=steps,
            progress=loop.progress,
            wandb=loop.wandb,
        ) as recorder:

            def settle(before: int, after: int, metrics: dict[str, jax.Array]) -> None:
                """Waits for a dispatch, checks it and records it."""
                values = jax.device_get(metrics)
                _check_finite(name, before, values, manager)
                recorder.advance(after, values["loss"])
                if _due(loop.log_every, before, after, steps):
                    del values["finite"]
                    means = {k: v.mean(0, dtype=np.float64) for k, v in values.items()}
                    recorder.write(after, means, "train")

            unsettled, saved = None, time.monotonic()
            patience = loop.checkpoint_seconds if jax.process_count() == 1 else None
            while step < steps:
                before = step
                if feed and (fresh := feed(before)) is not fed:
                    fed, data = fresh, jax.device_put(fresh, replicated)
                step = min(
                    (before // loop.steps_per_dispatch + 1) * loop.steps_per_dispatch, steps
                )
                state, metrics = dispatch(
                    state, run_key, data, frozen, length=step - before
                )
                # The device works on this dispatch while the host reads the last one.
                if unsettled is not None:
                    settle(*unsettled)
                unsettled = (before, step, metrics)
                probing = _due(loop.evaluate_every, before, step, steps)
                probe = loop.evaluate if probing else None
                saving = _due(loop.checkpoint_every, before, step, steps) or (
                    patience is not None and time.monotonic() - saved >= patience
                )
                if probe or saving:
                    settle(*unsettled)
                    unsettled = None
                if probe:
                    recorder.write(step, probe(state), "eval")
                if saving:
                    _check_state(name, state, population is not None, manager)
                    checkpoint.save(manager, state, run)
                    saved = time.monotonic()
    return state


def _due(interval: int, before: int, after: int, steps: int) -> bool:
    """Whether a multiple of ``interval`` was reached since ``before``, or the end."""
    return after == steps or after // interval > before // interval


def _announce(name: str, start: int, steps: int, cost: dict[str, int]) -> None:
    resumed = f" from step {start}" if start else ""
    say(
        f"{name}: {steps - start} steps{resumed}, {cost['parameters']:,} parameters, "
        f"state {cost['state_bytes'] / 2**20:.1f} MiB, "
        f"inputs {cost['input_bytes'] / 2**20:.1f} MiB, "
        f"{cost['flops_per_step'] / 1e9:.3g} GFLOP per step"
    )


def _check_finite(
    name: str, before: int, values: dict[str, np.ndarray], manager: Any
) -> None:
    """Raises `Diverged` for the first step of a dispatch that is not finite.

    Metrics are stacked over steps, and in a population over members after that.
    """
    bad = np.argwhere(~values["finite"])
    if len(bad):
        index, *member = at = tuple(bad[0].tolist())
        what = f"loss {values['loss'][at]:g}, grad_norm {values['grad_norm'][at]:g}"
        raise _diverged(name, before + index + 1, member, what, manager)


def _check_state(name: str, state: TrainState, population: bool, manager: Any) -> None:
    """Raises `Diverged` if a state about to be saved is not finite.

    No loss has seen the last update yet.
    """
    finite = jax.device_get(_finite(state, population))
    if not finite.all():
        member = np.argwhere(~finite)[0].tolist()
        what = "the updated parameters are not finite"
        raise _diverged(name, int(state.step), member, what, manager)


@functools.partial(jax.jit, static_argnames="population")
def _finite(state: TrainState, population: bool) -> jax.Array:
    """One flag, or one per member."""
    flags = [
        jnp.isfinite(x).all(axis=tuple(range(int(population), x.ndim)))
        for x in jax.tree.leaves((state.params, state.ema_params, state.opt_state))
    ]
    return jnp.stack(flags).all(axis=0)


def _diverged(
    name: str, step: int, member: Sequence[int], what: str, manager: Any
) -> Diverged:
    who = f" of member {member[0]}" if member else ""
    last = checkpoint.last_checkpoint(manager) or "none yet"
    return Diverged(
        f"{name} diverged at step {step}{who}: {what}; last good checkpoint: {last}; "
        "lower the learning rate or clip the gradient"
    )
