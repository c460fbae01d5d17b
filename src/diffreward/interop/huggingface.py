"""Hugging Face folders of trajectory models: ``UNet1DModel`` of the RL kind.

A folder holds ``config.json`` and weights; a pipeline folder holds them under ``unet/``,
with the noise schedule under ``scheduler/``. There samples are (channels, horizon).
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from diffreward.diffusion import Prediction, Schedule, cosine, from_beta
from diffreward.interop.diffuser import Loaded
from diffreward.interop.layout import (
    Dialect,
    from_params,
    to_params,
    unet_table,
    value_table,
)
from diffreward.interop.tensors import read_tensors
from diffreward.networks import TemporalUnet, ValueFunction

FIXED = {
    "_class_name": ("UNet1DModel",),
    "extra_in_channels": (0,),
    "time_embedding_type": ("positional",),
    "flip_sin_to_cos": (False,),
    "use_timestep_embedding": (True,),
    "freq_shift": (1, 1.0),
    "act_fn": ("mish",),
    "norm_num_groups": (8,),
    "layers_per_block": (1,),
    "time_embedding_dim": (None,),
}
"""Options with one value that our networks have; ``layers_per_block`` counts the second
of two residual blocks."""
READ = (
    "in_channels",
    "out_channels",
    "block_out_channels",
    "down_block_types",
    "mid_block_type",
    "up_block_types",
    "out_block_type",
    "downsample_each_block",
)
IGNORED = ("sample_size", "sample_rate", "_diffusers_version", "_name_or_path")
DEFAULTS = {"extra_in_channels": 0, "time_embedding_dim": None, "norm_num_groups": 8}

PREDICTIONS: dict[str, Prediction] = {
    "epsilon": "eps",
    "sample": "x_0",
    "v_prediction": "v",
}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a folder.

    Raises:
        ValueError: if the file is missing, or no JSON object.
    """
    if not path.exists():
        raise ValueError(f"{path} is missing")
    try:
        value = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__} instead of an object")
    return value


def load_unet1d(folder: str | Path, variant: str | None = None) -> Loaded:
    """A temporal U-Net, or a value function, of a ``UNet1DModel`` folder.

    Args:
        folder: with ``config.json`` and weights.
        variant: of the weights, by default the main ones.

    Raises:
        ValueError: if a file is missing or damaged, or an option of the config is unknown
            or has a value that our networks do not have; by name.
    """
    folder = Path(folder)
    path = folder / "config.json"
    config = DEFAULTS | read_json(path)
    for name, allowed in FIXED.items():
        if name not in config:
            raise ValueError(f"{path} lacks {name}")
        if config[name] not in allowed or isinstance(config[name], bool) != isinstance(
            allowed[0], bool
        ):
            raise ValueError(
                f"{path}: {name} = {config[name]!r} is not supported; only {allowed[0]!r}"
            )
    known = {*FIXED, *READ, *IGNORED}
    if unknown := sorted(config.keys() - known):
        raise ValueError(f"{path}: unknown option {unknown[0]} = {config[unknown[0]]!r}")
    if missing := [name for name in READ[:-1] if name not in config]:
        raise ValueError(f"{path} lacks {missing[0]}")
    widths = list(config["block_out_channels"])
    kind = _kind(config, len(widths), path)
    dim, dim_in = widths[0], config["in_channels"]
    tensors = read_tensors(folder, variant)
    if odd := [w for w in widths if w % dim]:
        raise ValueError(f"{path}: block_out_channels has {odd[0]}, no multiple of {dim}")
    mults = tuple(w // dim for w in widths)
    if kind == "value":
        table = value_table(_dialect(len(widths)), widths, dim_in)
        network: Any = ValueFunction(dim, mults)
    else:
        table = unet_table(_dialect(len(widths)), widths, dim_in, attention=False)
        out_dim = config["out_channels"]
        network = TemporalUnet(dim, mults, out_dim=None if out_dim == dim_in else out_dim)
    return Loaded(network, to_params(table, tensors, str(folder)), dim_in)


def _kind(config: dict[str, Any], levels: int, path: Path) -> str:
    """``unet`` or ``value``; every other arrangement of blocks is refused."""
    blocks = {
        "unet": {
            "down_block_types": ["DownResnetBlock1D"] * levels,
            "mid_block_type": "MidResTemporalBlock1D",
            "up_block_types": ["UpResnetBlock1D"] * (levels - 1),
            "out_block_type": "OutConv1DBlock",
            "downsample_each_block": False,
        },
        "value": {
            "down_block_types": ["DownResnetBlock1D"] * levels,
            "mid_block_type": "ValueFunctionMidBlock1D",
            "up_block_types": [],
            "out_block_type": "ValueFunction",
            "downsample_each_block": True,
        },
    }
    kind = "value" if config["out_block_type"] == "ValueFunction" else "unet"
    for name, wanted in blocks[kind].items():
        found = config.get(name, False)
        found = list(found) if isinstance(found, list | tuple) else found
        if found != wanted:
            raise ValueError(
                f"{path}: {name} = {found!r} is not supported; only {wanted!r}"
            )
    return kind


def load_scheduler(folder: str | Path) -> tuple[Schedule, Prediction]:
    """Noise schedule and kind of prediction of a ``scheduler_config.json``.

    Raises:
        ValueError: if it is missing, or its schedule or prediction is unknown.
    """
    path = Path(folder) / "scheduler_config.json"
    config = read_json(path)
    steps = config.get("num_train_timesteps", 1000)
    first, last = config.get("beta_start", 1e-4), config.get("beta_end", 0.02)
    name = config.get("beta_schedule", "linear")
    if config.get("trained_betas") is not None:
        schedule = from_beta(np.asarray(config["trained_betas"]))
    elif name == "squaredcos_cap_v2":
        schedule = cosine(steps)
    elif name == "linear":
        schedule = from_beta(np.linspace(first, last, steps))
    elif name == "scaled_linear":
        schedule = from_beta(np.linspace(first**0.5, last**0.5, steps) ** 2)
    else:
        raise ValueError(
            f"{path}: beta_schedule = {name!r} is not supported; squaredcos_cap_v2, "
            "linear, scaled_linear or trained_betas"
        )
    if config.get("rescale_betas_zero_snr"):
        raise ValueError(f"{path}: rescale_betas_zero_snr is not supported")
    # Older files say it with a flag.
    older = "epsilon" if config.get("predict_epsilon", True) else "sample"
    kind = config.get("prediction_type", older)
    if kind not in PREDICTIONS:
        raise ValueError(
            f"{path}: prediction_type = {kind!r} is not supported; {', '.join(PREDICTIONS)}"
        )
    return schedule, PREDICTIONS[kind]


def save_unet1d(folder: str | Path, network: TemporalUnet, params: Any, dim: int) -> None:
    """Writes a folder that ``diffusers.UNet1DModel.from_pretrained`` loads.

    Args:
        folder: to write; must not exist.
        network: without attention, which that model does not have.
        params: of the network.
        dim: numbers per step of its input.

    Raises:
        ValueError: if the network has no counterpart there, or the folder exists.
    """
    folder = Path(folder)
    if network.attention or not isinstance(network, TemporalUnet):
        raise ValueError("UNet1DModel has no attention; only plain U-Nets can be written")
    if folder.exists():
        raise ValueError(f"{folder} exists; choose another folder")
    widths = [network.dim * m for m in network.dim_mults]
    levels = len(widths)
    table = unet_table(_dialect(levels), widths, dim, attention=False)
    config = {
        **{name: allowed[0] for name, allowed in FIXED.items()},
        "in_channels": dim,
        "out_channels": network.out_dim or dim,
        "block_out_channels": widths,
        "down_block_types": ["DownResnetBlock1D"] * levels,
        "mid_block_type": "MidResTemporalBlock1D",
        "up_block_types": ["UpResnetBlock1D"] * (levels - 1),
        "out_block_type": "OutConv1DBlock",
        "downsample_each_block": False,
        "sample_size": 65536,
    }
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = from_params(table, params)
    name = "diffusion_pytorch_model.safetensors"
    save_file(tensors, partial / name, metadata={"format": "pt"})
    os.replace(partial, folder)


def save_scheduler(folder: str | Path, schedule: Schedule, prediction: Prediction) -> None:
    """Writes ``scheduler_config.json`` of a DDPM scheduler with these very betas."""
    names = {ours: theirs for theirs, ours in PREDICTIONS.items()}
    if prediction not in names:
        raise ValueError(f"a scheduler cannot say {prediction!r}; {', '.join(names)}")
    config = {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": schedule.num_steps,
        "beta_schedule": "trained_betas",
        "trained_betas": np.asarray(schedule.beta, np.float64).tolist(),
        "prediction_type": names[prediction],
        "clip_sample": False,
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scheduler_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _dialect(levels: int) -> Dialect:
    def part(name: str) -> str:
        if match := re.fullmatch(r"(?:down|res)_(\d+)_(?:res_)?(\d)", name):
            return f"down_blocks.{match[1]}.resnets.{match[2]}"
        if match := re.fullmatch(r"down_(\d+)(?:_resample)?", name):
            return f"down_blocks.{match[1]}.downsample.conv"
        if match := re.fullmatch(r"up_(\d+)_res_(\d)", name):
            return f"up_blocks.{levels - 1 - int(match[1])}.resnets.{match[2]}"
        if match := re.fullmatch(r"up_(\d+)_resample", name):
            return f"up_blocks.{levels - 1 - int(match[1])}.upsample.conv"
        names = {
            "mid_res_0": "mid_block.resnets.0",
            "mid_res_1": "mid_block.resnets.1",
            "mid_0": "mid_block.res1",
            "mid_down_0": "mid_block.down1.conv",
            "mid_1": "mid_block.res2",
            "mid_down_1": "mid_block.down2.conv",
            "hidden": "out_block.final_block.0",
            "head": "out_block.final_block.2",
        }
        return names[name]

    inner = ("conv_in", "conv_out")
    return Dialect(
        time=("time_mlp.linear_1", "time_mlp.linear_2"),
        conv=lambda block, i: f"{block}.{inner[i]}.conv1d",
        norm=lambda block, i: f"{block}.{inner[i]}.group_norm",
        block_time="time_emb",
        skip="residual_conv",
        part=part,
        final=(
            "out_block.final_conv1d_1",
            "out_block.final_conv1d_gn",
            "out_block.final_conv1d_2",
        ),
    )
