"""Diffusion policies: what any of their libraries' U-Nets becomes here.

The network is one (Chi et al., 2023), its names differ; LeRobot's and those of the original
are told apart by a :class:`Names`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from diffreward.data import Normaliser
from diffreward.diffusion import Prediction, Schedule
from diffreward.interop.diffuser import check_fit
from diffreward.interop.layout import Dialect, to_params, unet_table
from diffreward.networks import FilmUnet
from diffreward.types import Params

ANCHOR = "mid_modules.0.cond_encoder.1.weight"
"""Reads level and observations: a tensor of every such network."""


class Told(NamedTuple):
    """One array of what a model is told beside its sample."""

    name: str | None
    """As the context must call it; None: as it likes."""
    shape: tuple[int, ...]


class Policy(NamedTuple):
    """A diffusion policy, in the units of its data."""

    network: FilmUnet
    params: Params
    schedule: Schedule
    prediction: Prediction
    shape: tuple[int, int]
    """Actions of a chunk, and numbers of each."""
    told: tuple[Told, ...]
    normaliser: Normaliser
    """Of the actions."""
    observed: tuple[Normaliser | None, ...]
    """Of every array it is told."""

    def apply(self, x: Array, t: Array, *told: Array) -> Array:
        """The prediction for a chunk in normalised units, under observations in theirs."""
        steps = []
        for part, normaliser, value in zip(self.told, self.observed, told, strict=True):
            rows = jnp.asarray(value, jnp.float32).reshape(part.shape)
            if normaliser is not None:
                shift, scale = (jnp.asarray(v)[None] for v in normaliser)
                rows = (rows - shift) / scale
            steps.append(rows)
        # Everything of the first step comes before everything of the second.
        condition = jnp.concatenate(steps, axis=-1).reshape(-1)
        answer: Any = self.network.apply(self.params, x, t, condition)
        return answer


class Names(NamedTuple):
    """Of the parts of the U-Net in one library."""

    conv: Callable[[str, int], str]
    """Convolution 0 or 1 of a block."""
    resample: str
    """What halves and doubles a chunk."""


LEROBOT = Names(lambda block, i: f"{block}.conv{i + 1}.block", "2")
ORIGINAL = Names(lambda block, i: f"{block}.blocks.{i}.block", "2.conv")


def film_unet(
    network: FilmUnet,
    names: Names,
    tensors: Mapping[str, np.ndarray],
    dim: int,
    where: str,
    prefix: str = "",
) -> tuple[Params, int]:
    """Parameters of a policy's U-Net, and the numbers it is told beside the level.

    Args:
        network: of its sizes.
        names: of its library.
        tensors: named as there.
        dim: numbers of an action.
        where: the file, for messages.
        prefix: of the names in the file, for messages.

    Raises:
        ValueError: if they do not fit.
    """
    widths = list(network.widths)
    anchor = tensors.get(ANCHOR)
    if anchor is None or anchor.ndim != 2 or anchor.shape[1] <= network.time_dim:
        raise ValueError(
            f"{where} lacks {prefix}{ANCHOR}, which reads level and observations"
        )
    told = anchor.shape[1] - network.time_dim
    table = unet_table(dialect(names, len(widths)), widths, dim, False)
    params = to_params(table, tensors, where)
    check_fit(network, params, 2 ** (len(widths) - 1), dim, where, jnp.zeros(told))
    return params, told


def dialect(names: Names, levels: int) -> Dialect:
    """The names of all its parts."""
    parts = {f"mid_res_{k}": f"mid_modules.{k}" for k in (0, 1)}
    for i in range(levels):
        down, up = f"down_modules.{i}", f"up_modules.{levels - 1 - i}"
        for k in (0, 1):
            parts[f"down_{i}_res_{k}"] = f"{down}.{k}"
            parts[f"up_{i}_res_{k}"] = f"{up}.{k}"
        parts[f"down_{i}_resample"] = f"{down}.{names.resample}"
        parts[f"up_{i}_resample"] = f"{up}.{names.resample}"
    return Dialect(
        time=("diffusion_step_encoder.1", "diffusion_step_encoder.3"),
        conv=lambda block, i: f"{names.conv(block, i)}.0",
        norm=lambda block, i: f"{names.conv(block, i)}.1",
        block_time="cond_encoder.1",
        skip="residual_conv",
        parts=parts,
        final=("final_conv.0.block.0", "final_conv.0.block.1", "final_conv.1"),
    )
