"""State dicts of Diffuser (Janner et al., 2022) and of the code of the paper.

A file holds either the tensors of one network, or what the trainers save: a dict with
``step``, ``model`` and ``ema``, whose tensors have the prefix ``model.`` and stand beside
the noise schedule. The averaged copy (``ema``) is what both codes act with.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from diffreward.diffusion import Schedule, from_beta
from diffreward.interop.layout import Dialect, to_params, unet_table, value_table
from diffreward.interop.tensors import read_checkpoint
from diffreward.networks import SingleStepRewardMLP, TemporalUnet, ValueFunction
from diffreward.networks.layers import Activation


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


def read_state_dict(path: str | Path, copy: str = "ema") -> StateDict:
    """Reads a Diffuser checkpoint.

    Args:
        path: ``state_*.pt``, or a plain state dict.
        copy: ``ema`` (the average) or ``model``, of a file that has both.

    Raises:
        ValueError: if it is neither, or cannot be read.
    """
    saved = read_checkpoint(path)
    if isinstance(saved, dict) and isinstance(saved.get(copy), dict):
        saved = saved[copy]
    tensors = saved if isinstance(saved, dict) else {}
    if not tensors or not all(isinstance(v, np.ndarray) for v in tensors.values()):
        raise ValueError(
            f"{path} is no state dict, nor a dict with one under {copy!r}; it holds "
            f"{_outline(saved)}"
        )
    betas = tensors.get("betas")
    schedule = None if betas is None else from_beta(np.asarray(betas, np.float64))
    if any(name.startswith("model.") for name in tensors):
        tensors = {
            name.removeprefix("model."): value
            for name, value in tensors.items()
            if name.startswith("model.")
        }
    return StateDict(dict(tensors), schedule)


def load_unet(tensors: Mapping[str, np.ndarray], where: str = "state dict") -> Loaded:
    """A temporal U-Net; its sizes are told by the tensors.

    Raises:
        ValueError: if the tensors are not those of a temporal U-Net.
    """
    dim = _time_dim(tensors, where)
    count = 1 + _highest(tensors, r"downs\.(\d+)\.", where)
    try:
        first = tensors["downs.0.0.blocks.0.block.0.weight"]
        widths = [
            len(tensors[f"downs.{i}.1.blocks.0.block.0.weight"]) for i in range(count)
        ]
    except KeyError as error:
        raise ValueError(f"{where} lacks the tensor {error.args[0]}") from None
    attention = "mid_attn.fn.fn.to_qkv.weight" in tensors
    table = unet_table(_dialect(count), widths, first.shape[1], attention)
    network = TemporalUnet(dim, _mults(widths, dim, where), attention)
    return Loaded(network, to_params(table, tensors, where), first.shape[1])


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
    count = 1 + _highest(tensors, r"blocks\.(\d+)\.", where)
    try:
        first = tensors["blocks.0.0.blocks.0.block.0.weight"]
        widths = [
            len(tensors[f"blocks.{i}.1.blocks.0.block.0.weight"]) for i in range(count)
        ]
    except KeyError as error:
        raise ValueError(f"{where} lacks the tensor {error.args[0]}") from None
    table = value_table(_dialect(count), widths, first.shape[1])
    network = ValueFunction(dim, _mults(widths, dim, where), activation)
    return Loaded(network, to_params(table, tensors, where), first.shape[1])


def load_single_step(
    tensors: Mapping[str, np.ndarray],
    window: int,
    where: str = "state dict",
    activation: Activation = "leaky_relu",
) -> Loaded:
    """The paper's maze reward: an MLP on windows of ``window`` steps.

    Its linear layers are told by their order; the first reads [window, time embedding].

    Raises:
        ValueError: if the tensors are not those of such a network.
    """
    time_dim = _time_dim(tensors, where)
    layers = sorted(
        (k.removesuffix(".weight") for k in tensors if k.endswith(".weight")),
        key=lambda name: [int(n) for n in re.findall(r"\d+", name)],
    )
    layers = [name for name in layers if not name.startswith("time_mlp")]
    sizes = [tensors[f"{name}.weight"].shape for name in layers]
    chained = all(a[0] == b[1] for a, b in zip(sizes, sizes[1:], strict=False))
    inputs = sizes[0][1] - time_dim if sizes else 0
    if not chained or len(sizes) < 3 or sizes[-1] != (1, 1) or inputs % window:
        raise ValueError(
            f"{where} is no single-step reward of window {window}: layers {sizes}"
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
    return Loaded(network, {"params": flat}, inputs // window)


def _linear(tensors: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    weight, bias = (tensors[f"{name}.{part}"] for part in ("weight", "bias"))
    return {
        "kernel": np.asarray(weight, np.float32).T,
        "bias": np.asarray(bias, np.float32),
    }


def _dialect(levels: int) -> Dialect:
    resample = {"res_0": "0", "res_1": "1", "attn": "2", "resample": "3.conv"}

    def part(name: str) -> str:
        if match := re.fullmatch(r"down_(\d+)_(\w+)", name):
            return f"downs.{match[1]}.{resample[match[2]]}"
        if match := re.fullmatch(r"up_(\d+)_(\w+)", name):
            return f"ups.{levels - 1 - int(match[1])}.{resample[match[2]]}"
        if match := re.fullmatch(r"res_(\d+)_(\d)", name):
            return f"blocks.{match[1]}.{match[2]}"
        if match := re.fullmatch(r"down_(\d+)", name):
            return f"blocks.{match[1]}.2.conv"
        names = {
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
        return names[name]

    return Dialect(
        time=("time_mlp.1", "time_mlp.3"),
        conv=lambda block, i: f"{block}.blocks.{i}.block.0",
        norm=lambda block, i: f"{block}.blocks.{i}.block.2",
        block_time="time_mlp.1",
        skip="residual_conv",
        part=part,
        final=("final_conv.0.block.0", "final_conv.0.block.2", "final_conv.1"),
    )


def _time_dim(tensors: Mapping[str, np.ndarray], where: str) -> int:
    weight = tensors.get("time_mlp.1.weight")
    if weight is None or weight.ndim != 2:
        raise ValueError(f"{where} lacks the tensor time_mlp.1.weight of a time embedding")
    return weight.shape[1]


def _mults(widths: list[int], dim: int, where: str) -> tuple[int, ...]:
    if any(width % dim for width in widths):
        raise ValueError(f"{where}: widths {widths} are no multiples of {dim}")
    return tuple(width // dim for width in widths)


def _highest(tensors: Mapping[str, np.ndarray], pattern: str, where: str) -> int:
    found = [int(m[1]) for name in tensors if (m := re.match(pattern, name))]
    if not found:
        raise ValueError(f"{where} has no tensor like {pattern}; is it another network?")
    return max(found)


def _outline(saved: Any) -> str:
    if isinstance(saved, dict):
        return f"a dict with {', '.join(map(str, list(saved)[:4]))}"
    return f"a {type(saved).__name__}"
