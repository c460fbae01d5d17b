"""Where arrays live: one mesh, batches cut over it, parameters placed by rules.

One device is a mesh of size one and runs the same code.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from diffreward.names import nearest

Rule = tuple[str, P]
"""A regular expression over the path of an array, and how that array is cut."""


def make_mesh(
    data: int | None = None, model: int = 1, *, devices: Sequence[Any] | None = None
) -> Mesh:
    """A mesh with the axes ``data`` (batches) and ``model`` (parameters).

    Args:
        data: devices along ``data``; by default all that ``model`` leaves.
        model: devices along ``model``.
        devices: to choose from; by default those of this process. ``jax.devices()`` are
            those of all processes, which then must run the same program.

    Raises:
        ValueError: if there are not that many devices.
    """
    devices = jax.local_devices() if devices is None else devices
    available = len(devices)
    data = max(available // model, 1) if data is None else data
    if data * model > available or data < 1 or model < 1:
        raise ValueError(
            f"mesh of data={data} x model={model} needs {data * model} devices, "
            f"{available} available; make it smaller"
        )
    chosen = np.array(devices[: data * model]).reshape(data, model)
    return Mesh(chosen, ("data", "model"))


def path_name(path: tuple[Any, ...]) -> str:
    """Path of a leaf as ``params/dense/kernel``, as rules and messages spell it."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def state_shardings(
    abstract: Any, mesh: Mesh, rules: Sequence[Rule] = (), *, population: bool = False
) -> Any:
    """Sharding of every array of an abstract state.

    The first rule whose expression is found in an array's path decides; what no rule
    matches is replicated. A rule written for ``dense/kernel`` also places its moving
    average and the optimiser's moments, whose paths end alike.

    Args:
        abstract: pytree of arrays or ``ShapeDtypeStruct``.
        mesh: devices.
        rules: pairs of (expression, PartitionSpec of one member's array).
        population: True if the arrays have a leading member axis; it is not cut.

    Raises:
        ValueError: for a rule that matches nothing or does not fit what it matches.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(abstract)
    names = [path_name(path) for path, _ in leaves]
    for pattern, _ in rules:
        if not any(re.search(pattern, name) for name in names):
            raise ValueError(
                f"sharding rule {pattern!r} matches no array; the nearest path is "
                f"{nearest(pattern, names)!r}"
            )
    lead = (None,) if population else ()

    def place(name: str, shape: tuple[int, ...]) -> NamedSharding:
        for pattern, spec in rules:
            if re.search(pattern, name):
                spec = P(*lead, *spec)
                _check_fit(name, shape, spec, mesh)
                return NamedSharding(mesh, spec)
        return NamedSharding(mesh, P())

    placed = [place(n, x.shape) for n, (_, x) in zip(names, leaves, strict=True)]
    return jax.tree.unflatten(treedef, placed)


def cut_shardings(abstract: Any, mesh: Mesh, axis: str = "data") -> Any:
    """Shardings that cut every array over ``axis``, for models too large for one device.

    The longest axis of an array that divides evenly is the one cut; arrays without such an
    axis are replicated. XLA gathers each where it is used.

    Args:
        abstract: pytree of arrays or ``ShapeDtypeStruct``.
        mesh: devices.
        axis: mesh axis to cut over; sharing it with the batch needs no further devices.
    """
    devices = mesh.shape[axis]

    def place(x: Any) -> NamedSharding:
        fitting = [i for i, size in enumerate(x.shape) if size and size % devices == 0]
        if not fitting:
            return NamedSharding(mesh, P())
        longest = max(fitting, key=lambda i: x.shape[i])
        return NamedSharding(mesh, P(*(None,) * longest, axis))

    return jax.tree.map(place, abstract)


def constrain_batch(batch: Any, mesh: Mesh) -> Any:
    """Cuts the first axis of every array of a batch over the mesh axis ``data``."""
    sharding = NamedSharding(mesh, P("data"))
    cut = lambda x: jax.lax.with_sharding_constraint(x, sharding) if x.ndim else x
    return jax.tree.map(cut, batch)


def check_batch(batch: Any, mesh: Mesh, accumulate: int = 1) -> int:
    """Returns the size of an abstract batch if its arrays can be cut evenly.

    Raises:
        ValueError: if the arrays differ in their first axis, or it is not a multiple of
            ``accumulate`` times the devices along ``data``.
    """
    named = jax.tree_util.tree_flatten_with_path(batch)[0]
    sizes = {path_name(p) or "batch": x.shape[0] for p, x in named if x.shape}
    if len(set(sizes.values())) != 1:
        raise ValueError(
            f"the arrays of a batch need one common first axis, got {sizes}; "
            "let draw return arrays that share it"
        )
    size = next(iter(sizes.values()))
    devices = mesh.shape["data"]
    if size % (accumulate * devices):
        raise ValueError(
            f"batch of {size} does not split into {accumulate} slices over {devices} "
            f"devices; use a multiple of {accumulate * devices}"
        )
    return size


def _check_fit(name: str, shape: tuple[int, ...], spec: P, mesh: Mesh) -> None:
    if len(spec) > len(shape):
        raise ValueError(f"sharding {spec} has more axes than {name} of shape {shape}")
    for size, axes in zip(shape, spec, strict=False):
        names = () if axes is None else axes if isinstance(axes, tuple) else (axes,)
        unknown = set(names) - set(mesh.axis_names)
        if unknown:
            raise ValueError(
                f"sharding {spec} of {name} names {sorted(unknown)}; "
                f"the mesh has {list(mesh.axis_names)}"
            )
        devices = math.prod(mesh.shape[axis] for axis in names)
        if size % devices:
            raise ValueError(
                f"axis of {size} of {name} does not split over {devices} devices; "
                f"change the rule {spec} or the width"
            )
