"""Hugging Face folders of trajectory models: ``UNet1DModel`` of the RL kind.

A folder holds ``config.json`` and weights; a pipeline folder holds them under ``unet/``,
with the noise schedule under ``scheduler/``. There samples are (channels, horizon).
"""

import json
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from diffreward import files
from diffreward.interop.diffuser import Loaded, check_fit
from diffreward.interop.layout import (
    Dialect,
    from_params,
    to_params,
    unet_table,
    value_table,
)
from diffreward.interop.options import (
    AVERAGING,
    check_options,
    read_object,
    shown,
    whole,
    wholes,
)
from diffreward.interop.scheduler import load_scheduler, save_scheduler
from diffreward.interop.tensors import read_tensors
from diffreward.networks import TemporalUnet, ValueFunction

__all__ = ["load_scheduler", "load_unet1d", "save_scheduler", "save_unet1d"]

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
DEFAULTS = {
    "extra_in_channels": 0,
    "time_embedding_dim": None,
    "norm_num_groups": 8,
    "downsample_each_block": False,
}
"""Options that the first versions did not write down, by what they did."""


@files.contained
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
    config = DEFAULTS | read_object(path)
    check_options(
        config, path, read=(*FIXED, *READ), fixed=FIXED, ignored=(*IGNORED, *AVERAGING)
    )
    for name, allowed in FIXED.items():
        if not any(type(config[name]) is type(a) and config[name] == a for a in allowed):
            raise ValueError(
                f"{path}: {name} = {shown(config[name])} is not supported; only "
                f"{allowed[0]!r}"
            )
    widths = list(wholes(config, "block_out_channels", path))
    kind = _kind(config, len(widths), path)
    dim, dim_in = widths[0], whole(config, "in_channels", path)
    out_dim = whole(config, "out_channels", path)
    if odd := [w for w in widths if w % dim]:
        raise ValueError(f"{path}: block_out_channels has {odd[0]}, no multiple of {dim}")
    tensors = read_tensors(folder, variant)
    mults = tuple(w // dim for w in widths)
    if kind == "value":
        table = value_table(_dialect(len(widths)), widths, dim_in)
        return Loaded(
            ValueFunction(dim, mults), to_params(table, tensors, str(folder)), dim_in
        )
    table = unet_table(_dialect(len(widths)), widths, dim_in, attention=False)
    network = TemporalUnet(dim, mults, out_dim=None if out_dim == dim_in else out_dim)
    params = to_params(table, tensors, str(folder))
    check_fit(network, params, 2 ** (len(widths) - 1), dim_in, str(folder))
    return Loaded(network, params, dim_in)


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
        found = config[name]
        if type(found) is not type(wanted) or found != wanted:
            raise ValueError(
                f"{path}: {name} = {shown(found)} is not supported; only {wanted!r}"
            )
    return kind


def save_unet1d(folder: str | Path, network: TemporalUnet, params: Any, dim: int) -> None:
    """Writes a folder that ``diffusers.UNet1DModel.from_pretrained`` loads.

    Args:
        folder: to write; must not exist.
        network: without attention, which that model does not have.
        params: of the network.
        dim: numbers per step of its input.

    Raises:
        ValueError: if the network has no counterpart there.
        FileExistsError: if the folder exists.
    """
    folder = Path(folder)
    if network.attention or not isinstance(network, TemporalUnet):
        raise ValueError("UNet1DModel has no attention; only plain U-Nets can be written")
    if folder.exists():  # said before the work is done
        raise FileExistsError(f"{folder} exists; choose another folder")
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
    with files.writing(folder, replace=False) as made:
        made.mkdir()
        files.write_text(made / "config.json", json.dumps(config, indent=2) + "\n")
        weights = save(from_params(table, params), metadata={"format": "pt"})
        files.write_bytes(made / "diffusion_pytorch_model.safetensors", weights)


def _dialect(levels: int) -> Dialect:
    parts = {
        "mid_res_0": "mid_block.resnets.0",
        "mid_res_1": "mid_block.resnets.1",
        "mid_0": "mid_block.res1",
        "mid_down_0": "mid_block.down1.conv",
        "mid_1": "mid_block.res2",
        "mid_down_1": "mid_block.down2.conv",
        "hidden": "out_block.final_block.0",
        "head": "out_block.final_block.2",
    }
    for i in range(levels):
        down, up = f"down_blocks.{i}", f"up_blocks.{levels - 1 - i}"
        for k in (0, 1):
            parts[f"down_{i}_res_{k}"] = parts[f"res_{i}_{k}"] = f"{down}.resnets.{k}"
            parts[f"up_{i}_res_{k}"] = f"{up}.resnets.{k}"
        parts[f"down_{i}_resample"] = parts[f"down_{i}"] = f"{down}.downsample.conv"
        parts[f"up_{i}_resample"] = f"{up}.upsample.conv"
    inner = ("conv_in", "conv_out")
    return Dialect(
        time=("time_mlp.linear_1", "time_mlp.linear_2"),
        conv=lambda block, i: f"{block}.{inner[i]}.conv1d",
        norm=lambda block, i: f"{block}.{inner[i]}.group_norm",
        block_time="time_emb",
        skip="residual_conv",
        parts=parts,
        final=(
            "out_block.final_conv1d_1",
            "out_block.final_conv1d_gn",
            "out_block.final_conv1d_2",
        ),
    )
