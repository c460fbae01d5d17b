"""Checkpoints that are written in the background, whole or not at all, and verified.

Every checkpoint records what it holds and a fingerprint of every array. Storage does
not notice a flipped bit in an array; the fingerprint does.
"""

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging

from diffreward.train.sharding import path_name
from diffreward.train.state import TrainState
from diffreward.types import Params

KEPT = 2


class CheckpointMismatch(ValueError):
    """A checkpoint belongs to another run than the one that asks for it."""


def open_checkpoints(directory: Path) -> ocp.CheckpointManager:
    """Opens, or creates, a folder that keeps the last two checkpoints."""
    options = ocp.CheckpointManagerOptions(
        preservation_policy=ocp.checkpoint_managers.LatestN(KEPT),
        # What a killed process left half-written.
        cleanup_tmp_directories=True,
    )
    return ocp.CheckpointManager(directory.absolute(), options=options)


def save(manager: ocp.CheckpointManager, state: TrainState, run: dict[str, Any]) -> None:
    """Starts to write ``state``; returns once the arrays may be donated.

    Args:
        manager: from `open_checkpoints`.
        state: what to save; its ``step`` names the checkpoint.
        run: JSON values that identify the run, compared when it is restored.
    """
    step, prints = jax.device_get((state.step, _fingerprints(state)))
    leaves = {
        name: {"shape": list(x.shape), "dtype": str(x.dtype), "fingerprint": int(p)}
        for (name, x), p in zip(_named(state), jax.tree.leaves(prints), strict=True)
    }
    manager.save(
        int(step),
        args=ocp.args.Composite(
            **{k: ocp.args.StandardSave(v) for k, v in _items(state).items()},
            run=ocp.args.JsonSave({"run": run, "leaves": leaves}),
        ),
    )


def restore(
    manager: ocp.CheckpointManager, abstract: TrainState, run: dict[str, Any]
) -> TrainState | None:
    """Restores the newest whole checkpoint, each array where ``abstract`` wants it.

    A damaged checkpoint is passed over with a warning and deleted, since its step will
    be written again.

    Args:
        manager: from `open_checkpoints`.
        abstract: pytree of ``ShapeDtypeStruct`` with shardings.
        run: what `save` was given.

    Returns:
        The state, or None if there is no checkpoint.

    Raises:
        CheckpointMismatch: if the run or any shape differs.
        OSError: if there are checkpoints and all of them are damaged.
    """
    steps = sorted(manager.all_steps(), reverse=True)
    damaged = []
    for step in steps:
        try:
            state = _read(manager, step, abstract, run)
        except CheckpointMismatch:
            raise
        except Exception as error:  # noqa: BLE001 - storage raises bare Exception
            where = manager.directory / str(step)
            logging.warning(
                "checkpoint %s is damaged and passed over: %s", where, _reason(error)
            )
            damaged.append(step)
            continue
        for bad in damaged:
            manager.delete(bad)
        return state
    if steps:
        raise OSError(
            f"no checkpoint in {manager.directory} can be read; "
            "remove the folder to start again"
        )
    return None


def last_checkpoint(manager: ocp.CheckpointManager) -> Path | None:
    """Folder of the newest finished checkpoint; waits for the one under way."""
    manager.wait_until_finished()
    step = manager.latest_step()
    return None if step is None else Path(manager.directory) / str(step)


def load_params(workdir: Path, *, ema: bool = True) -> Params:
    """Reads only the parameters of the newest checkpoint of a run, onto one device.

    Args:
        workdir: the ``workdir`` that ``fit`` was given.
        ema: the moving average instead of the raw parameters.

    Returns:
        Nested dicts of arrays; in a population with a leading member axis.

    Raises:
        FileNotFoundError: if the run has no checkpoint.
        OSError: if it is damaged.
    """
    directory = Path(workdir).absolute() / "checkpoint"
    if not directory.is_dir():
        raise FileNotFoundError(f"no checkpoint in {directory}; train this stage first")
    item = "ema_params" if ema else "params"
    options = ocp.CheckpointManagerOptions(create=False)
    with ocp.CheckpointManager(directory, options=options) as manager:
        step = manager.latest_step()
        if step is None:
            raise FileNotFoundError(f"no checkpoint in {directory}; train this stage first")
        where = directory / str(step)
        try:
            return _read_item(manager, step, item, where)
        except Exception as error:  # storage raises bare Exception
            raise OSError(
                f"checkpoint {where} cannot be read: {_reason(error)}; "
                "run its stage again to repair it"
            ) from error


def _read_item(manager: ocp.CheckpointManager, step: int, item: str, where: Path) -> Params:
    """Reads one part of a checkpoint in the shapes that it records itself."""
    leaves = _record(manager, step)["leaves"]
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract: dict[str, Any] = {}
    for name, leaf in leaves.items():
        path = name.split("/")
        if path[0] == item:
            node = abstract
            for parent in path[:-1]:
                node = node.setdefault(parent, {})
            shape, dtype = tuple(leaf["shape"]), jnp.dtype(leaf["dtype"])
            node[path[-1]] = jax.ShapeDtypeStruct(shape, dtype, sharding=here)
    wanted = ocp.args.Composite(**{item: ocp.args.StandardRestore(abstract)})
    restored = manager.restore(step, args=wanted)[item]
    _verify(restored, leaves, where)
    return restored[item]


def _read(
    manager: ocp.CheckpointManager, step: int, abstract: TrainState, run: dict[str, Any]
) -> TrainState:
    where = Path(manager.directory) / str(step)
    record = _record(manager, step)
    _check(record, abstract, run, where)
    items = {k: ocp.args.StandardRestore(v) for k, v in _items(abstract).items()}
    restored = manager.restore(step, args=ocp.args.Composite(**items))
    state = TrainState(**{k: v for name in items for k, v in restored[name].items()})
    _verify(state, record["leaves"], where)
    return state


def _record(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    wanted = ocp.args.Composite(run=ocp.args.JsonRestore())
    return manager.restore(step, args=wanted)["run"]


def _check(record: dict, abstract: TrainState, run: dict[str, Any], where: Path) -> None:
    """Refuses another run's checkpoint before any array is read."""
    advice = "use another workdir, or the settings that wrote it"
    for name, value in run.items():
        if record["run"].get(name) != value:
            raise CheckpointMismatch(
                f"checkpoint {where} was written with {name} "
                f"{record['run'].get(name)}, this run has {name} {value}; {advice}"
            )
    held = {n: (tuple(x["shape"]), x["dtype"]) for n, x in record["leaves"].items()}
    wanted = {n: (tuple(x.shape), str(x.dtype)) for n, x in _named(abstract)}
    for name in [*wanted, *held]:
        if held.get(name) != wanted.get(name):
            raise CheckpointMismatch(
                f"checkpoint {where} holds {_describe(name, held)}, "
                f"this run needs {_describe(name, wanted)}; {advice}"
            )


def _describe(name: str, table: dict[str, tuple[tuple[int, ...], str]]) -> str:
    if name not in table:
        return f"no {name}"
    shape, dtype = table[name]
    return f"{name} of {dtype} {shape}"


def _reason(error: Exception) -> str:
    """First line of a storage error, which may run over pages."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _verify(tree: Any, leaves: dict[str, Any], where: Path) -> None:
    prints = jax.tree.leaves(jax.device_get(_fingerprints(tree)))
    for (name, _), found in zip(_named(tree), prints, strict=True):
        if int(found) != leaves[name]["fingerprint"]:
            raise OSError(f"{name} in {where} is not what was saved")


@jax.jit
def _fingerprints(tree: Any) -> Any:
    """One uint32 per array, the same however the array is laid out over devices.

    Each element's bits are multiplied by an odd number that depends on its position and
    summed modulo 2^32. Integer sums do not depend on their order, and a change in one
    element always shows because an odd factor is invertible.
    """

    def fingerprint(x: jax.Array) -> jax.Array:
        if x.dtype == jnp.bool_:
            x = x.astype(jnp.uint8)
        word = {1: jnp.uint8, 2: jnp.uint16}.get(x.dtype.itemsize, jnp.uint32)
        bits = jax.lax.bitcast_convert_type(x, word).astype(jnp.uint32)
        index = jnp.zeros(bits.shape, jnp.uint32)
        for axis in range(bits.ndim):
            stride = math.prod(bits.shape[axis + 1 :]) % 2**32
            iota = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
            index = index + iota * jnp.uint32(stride)
        return jnp.sum(bits * (2 * index + 1), dtype=jnp.uint32)

    return jax.tree.map(fingerprint, tree)


def _items(state: TrainState) -> dict[str, dict[str, Any]]:
    """Parts of a state that can be read alone; a part is a dict, as storage wants."""
    return {
        "params": {"params": state.params},
        "ema_params": {"ema_params": state.ema_params},
        "optimiser": {"step": state.step, "opt_state": state.opt_state},
    }


def _named(tree: Any) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(path_name(path), x) for path, x in leaves]
