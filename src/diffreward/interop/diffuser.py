"""State dicts of Diffuser (Janner et al., 2022) and of the code of the paper.

A file holds either the tensors of one network, or what the trainers save: a dict with
``step``, ``model`` and ``ema``, whose tensors have the prefix ``model.`` and stand beside
the noise schedule. The averaged copy (``ema``) is what both codes act with.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from diffreward.diffusion import Schedule, from_beta
from diffreward.interop.copies import choose_copy, find_all, find_copies
from diffreward.interop.layout import Dialect, to_params, unet_table, value_table
from diffreward.interop.scheduler import MOST_LEVELS
from diffreward.interop.tensors import finite, read_checkpoint
from diffreward.networks import SingleStepRewardMLP, TemporalUnet, ValueFunction
from diffreward.networks.layers import Activation

ANCHOR = "time_mlp.1.weight"
"""A tensor of each of these networks, at its root."""
BUFFERS = {
    *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod"),
    *("sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod"),
    *("sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "loss_fn.weights"),
    *("posterior_variance", "posterior_log_variance_clipped"),
    *("posterior_mean_coef1", "posterior_mean_coef2"),
}
"""The schedule, where it is saved among the tensors of the network."""
KNOWN = (
    "read are Diffuser's temporal U-Nets (a state dict with downs, mid_block1, ups and "
    "time_mlp), folders of a UNet1DModel or UNet2DModel, and diffusion policies of LeRobot "
    "and of Chi et al.; any other network takes part as a function, in a "
    "diffreward.diffusion.DiffusionModel"
)

OWN = "give the network itself, as a function in a file: --base models.py:base"
LUCIDRAINS = (
    "holds a U-Net of denoising_diffusion_pytorch, which has computed other things under "
    "the same names from version to version (its norms, for one), so that its tensors do "
    "not say what it is"
)
GUIDED = (
    "holds a U-Net of guided_diffusion, whose tensors do not say its heads of attention, "
    "their order and its levels"
)
"""Networks that cannot be read without guessing, and why."""


class StateDict(NamedTuple):
    """Tensors of one network, and the schedule saved beside it."""

    tensors: dict[str, np.ndarray]
    schedule: Schedule | None


class Loaded(NamedTuple):
    """A network of ours with the parameters of theirs."""

    network: Any
    params: dict[str, Any]
    dim: int
    """Numbers per step."""


def read_state_dict(path: str | Path, copy: str | None = None) -> StateDict:
    """Reads a Diffuser checkpoint, nested and wrapped as its trainer left it.

    Args:
        path: ``state_*.pt``, or a plain state dict.
        copy: of a file that has several, by default the averaged one.

    Raises:
        ValueError: if it is neither, or cannot be read.
    """
    return state_dict_of(read_checkpoint(path), path, copy)


def state_dict_of(saved: Any, path: str | Path, copy: str | None = None) -> StateDict:
    """As :func:`read_state_dict`, of what a file was found to hold."""
    copies = find_copies(saved, ANCHOR, str(path))
    if not copies:
        raise ValueError(f"{path} {_stranger(saved)}")
    chosen = choose_copy(copies, copy, str(path))
    if "init_conv.weight" in chosen.tensors:
        raise ValueError(f"{path} {LUCIDRAINS}; {OWN}")
    tensors = {k: v for k, v in chosen.tensors.items() if k not in BUFFERS}
    betas = [chosen.beside["betas"]] if "betas" in chosen.beside else []
    betas = betas or find_all(saved, "betas")
    if any(not np.array_equal(betas[0], other) for other in betas[1:]):
        raise ValueError(f"{path} has {len(betas)} noise schedules (betas) that differ")
    return StateDict(tensors, _schedule(betas[0], path) if betas else None)


def _schedule(betas: np.ndarray, path: str | Path) -> Schedule:
    if betas.size > MOST_LEVELS:
        raise ValueError(f"{path} has {betas.size:,} betas, more than {MOST_LEVELS:,}")
    try:
        return from_beta(np.asarray(betas, np.float64))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None


def _stranger(saved: Any) -> str:
    """What a checkpoint of no network that is known here holds."""
    if not isinstance(saved, dict):
        return f"holds a {type(saved).__name__}, no state dict; {KNOWN}"
    if "mask_t" in saved:
        return (
            "is of a cold diffusion, which masks instead of adding noise: it has no score, "
            "so there is no reward in it"
        )
    if any(str(k).endswith("input_blocks.0.0.weight") for k in saved):
        return f"{GUIDED}; {OWN}"
    names = [f"{k} {np.shape(v)}" for k, v in saved.items() if isinstance(v, np.ndarray)]
    if not names:
        keys = ", ".join(map(repr, list(saved)[:4])) or "nothing"
        return f"holds {keys}, and no network that is known here; {KNOWN}"
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"holds a network of another kind ({', '.join(names[:3])}{more}); {KNOWN}"


def load_unet(tensors: Mapping[str, np.ndarray], where: str = "state dict") -> Loaded:
    """A temporal U-Net; its sizes are told by the tensors.

    Raises:
        ValueError: if the tensors are not those of a temporal U-Net.
    """
    dim = _time_dim(tensors, where)
    widths, dim_in = _widths(tensors, "downs", where)
    attention = "mid_attn.fn.fn.to_qkv.weight" in tensors
    table = unet_table(_dialect(len(widths)), widths, dim_in, attention)
    network = TemporalUnet(dim, _mults(widths, dim, where), attention)
    params = to_params(table, tensors, where)
    check_fit(network, params, 2 ** (len(widths) - 1), dim_in, where)
    return Loaded(network, params, dim_in)


def load_value(
    tensors: Mapping[str, np.ndarray],
    where: str = "state dict",
    activation: Activation = "mish",
) -> Loaded:
    """A value function, or the paper's locomotion reward (``leaky_relu``).

    Raises:
        ValueError: if the tensors are not those of a value function.
    """
    dim = _time_dim(tensors, where)
    widths, dim_in = _widths(tensors, "blocks", where)
    table = value_table(_dialect(len(widths)), widths, dim_in)
    network = ValueFunction(dim, _mults(widths, dim, where), activation)
    return Loaded(network, to_params(table, tensors, where), dim_in)


def load_single_step(
    tensors: Mapping[str, np.ndarray],
    window: int,
    dim: int,
    where: str = "state dict",
    activation: Activation = "leaky_relu",
) -> Loaded:
    """The paper's maze reward: an MLP on windows of ``window`` steps of ``dim`` numbers.

    Its linear layers are told by their order; the first reads [window, time embedding]. The
    tensors tell the product of both sizes alone: 8 steps of 3 numbers are 4 of 6.

    Raises:
        ValueError: if the tensors are not those of such a network, or of other windows.
    """
    time_dim = _time_dim(tensors, where)
    finite(tensors.items(), where)
    layers = sorted(
        (k.removesuffix(".weight") for k in tensors if k.endswith(".weight")),
        key=lambda name: [int(n) for n in re.findall(r"\d+", name)],
    )
    layers = [name for name in layers if not name.startswith("time_mlp")]
    sizes = [_shape(tensors, f"{name}.weight", 2, where) for name in layers]
    chained = all(a[0] == b[1] for a, b in zip(sizes, sizes[1:], strict=False))
    inputs = sizes[0][1] - time_dim if sizes else 0
    if not chained or len(sizes) < 3 or sizes[-1] != (1, 1):
        raise ValueError(f"{where} is no single-step reward: layers {sizes}")
    if inputs != window * dim:
        raise ValueError(
            f"{where} is a single-step reward of windows of {inputs} numbers, not of "
            f"{window} steps of {dim}"
        )
    flat: dict[str, Any] = {}
    weight = jnp.asarray(tensors[f"{layers[0]}.weight"], jnp.float32).T
    flat["window"] = {
        "kernel": weight[:inputs],
        "bias": jnp.asarray(tensors[f"{layers[0]}.bias"], jnp.float32),
    }
    flat["level"] = {"kernel": weight[inputs:]}
    names = [f"layer_{i}" for i in range(len(layers) - 2)] + ["head"]
    for ours, theirs in zip(names, layers[1:], strict=True):
        flat[ours] = _linear(tensors, theirs)
    flat["time"] = {
        "hidden": _linear(tensors, "time_mlp.1"),
        "out": _linear(tensors, "time_mlp.3"),
    }
    hidden = tuple(size[0] for size in sizes[:-2])
    network = SingleStepRewardMLP(hidden, window, activation, time_dim)
    return Loaded(network, {"params": flat}, dim)


def _linear(tensors: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    weight, bias = (tensors[f"{name}.{part}"] for part in ("weight", "bias"))
    return {
        "kernel": np.asarray(weight, np.float32).T,
        "bias": np.asarray(bias, np.float32),
    }


def _dialect(levels: int) -> Dialect:
    inner = {"res_0": "0", "res_1": "1", "attn": "2", "resample": "3.conv"}
    parts = {
        "mid_res_0": "mid_block1",
        "mid_attn": "mid_attn",
        "mid_res_1": "mid_block2",
        "mid_0": "mid_block1",
        "mid_down_0": "mid_down1.conv",
        "mid_1": "mid_block2",
        "mid_down_1": "mid_down2.conv",
        "hidden": "final_block.0",
        "head": "final_block.2",
    }
    for i in range(levels):
        for ours, theirs in inner.items():
            parts[f"down_{i}_{ours}"] = f"downs.{i}.{theirs}"
            parts[f"up_{i}_{ours}"] = f"ups.{levels - 1 - i}.{theirs}"
        parts |= {f"res_{i}_{k}": f"blocks.{i}.{k}" for k in (0, 1)}
        parts[f"down_{i}"] = f"blocks.{i}.2.conv"
    return Dialect(
        time=("time_mlp.1", "time_mlp.3"),
        conv=lambda block, i: f"{block}.blocks.{i}.block.0",
        norm=lambda block, i: f"{block}.blocks.{i}.block.2",
        block_time="time_mlp.1",
        skip="residual_conv",
        parts=parts,
        final=("final_conv.0.block.0", "final_conv.0.block.2", "final_conv.1"),
    )


def _time_dim(tensors: Mapping[str, np.ndarray], where: str) -> int:
    return _shape(tensors, ANCHOR, 2, where)[1]


def _widths(
    tensors: Mapping[str, np.ndarray], blocks: str, where: str
) -> tuple[list[int], int]:
    """Channels of every level, and numbers per step."""
    levels = {int(m[1]) for n in tensors if (m := re.match(rf"{blocks}\.(\d{{1,3}})\.", n))}
    if not levels:
        raise ValueError(f"{where} has a time embedding but no {blocks}.0; {KNOWN}")
    inner = "blocks.0.block.0.weight"
    widths = [
        _shape(tensors, f"{blocks}.{i}.1.{inner}", 3, where)[0] for i in sorted(levels)
    ]
    return widths, _shape(tensors, f"{blocks}.0.0.{inner}", 3, where)[1]


def _shape(
    tensors: Mapping[str, np.ndarray], name: str, rank: int, where: str
) -> tuple[int, ...]:
    """Of a tensor that must be there, without an empty axis."""
    if name not in tensors:
        raise ValueError(f"{where} lacks the tensor {name}")
    shape = tensors[name].shape
    if len(shape) != rank or 0 in shape:
        raise ValueError(f"{where}: {name} has shape {shape}, not {rank} axes of numbers")
    return shape


def _mults(widths: list[int], dim: int, where: str) -> tuple[int, ...]:
    if any(width % dim for width in widths):
        raise ValueError(f"{where}: widths {widths} are no multiples of {dim}")
    return tuple(width // dim for width in widths)


def check_fit(
    network: Any,
    params: dict[str, Any],
    horizon: int,
    dim: int,
    where: str,
    *told: Any,
) -> None:
    """Refuses parameters whose shapes are not the network's; nothing is computed.

    Args:
        network: called with samples (horizon, dim) and a level.
        params: of it.
        horizon: any that the network takes.
        dim: numbers per step.
        where: file or folder, for messages.
        *told: what the network is called with beside them.

    Raises:
        ValueError: naming the first parameter.
    """
    x, t = jax.ShapeDtypeStruct((horizon, dim), jnp.float32), jnp.int32(0)
    try:
        wanted = flatten_dict(jax.eval_shape(network.init, jax.random.key(0), x, t, *told))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{where}: its sizes are of no such network: {reason}") from error
    for path, value in flatten_dict(params).items():
        if path not in wanted or value.shape != wanted[path].shape:
            raise ValueError(
                f"{where}: the tensor of {'/'.join(path[1:])} has shape {value.shape}, "
                f"which does not fit the others"
            )
