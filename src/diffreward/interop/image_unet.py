"""Unconditional and labelled models of images: a ``UNet2DModel`` from its folder.

Most pictures of diffusers' pipelines without a prompt come from one (``DDPMPipeline``,
``DDIMPipeline``). There images are (channels, height, width), in [-1, 1].
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffreward import files
from diffreward.interop.latent import READ, check_depth, each, kinds, modern
from diffreward.interop.options import (
    AVERAGING,
    check_class,
    check_options,
    read_object,
    shown,
    whole,
    wholes,
)
from diffreward.interop.renaming import rename
from diffreward.interop.tensors import read_tensors
from diffreward.networks.latent import Unet2D
from diffreward.types import Params

DOWN = {"DownBlock2D": False, "AttnDownBlock2D": True}
UP = {"UpBlock2D": False, "AttnUpBlock2D": True}
"""Blocks that are read, and whether they have attention."""
VALUES = {
    "act_fn": ("silu", "swish"),
    "flip_sin_to_cos": (True, False),
    "freq_shift": (0, 1),
    "norm_eps": (1e-5, 1e-6),
    "downsample_padding": (0, 1),
}
OURS = {
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "mid_block_type": "UNetMidBlock2D",
    "mid_block_scale_factor": (1, 1.0),
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": (0, 0.0),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "add_attention": (True, False),
    "class_embed_type": None,
}
"""What the first versions did, by the options of later ones."""


class ImageModel(NamedTuple):
    """A U-Net of images, and the images it is for."""

    network: Unet2D
    params: Params
    shape: tuple[int | None, int | None, int]
    """Height, width and channels; None where the config leaves a side open."""


@files.contained
def load_unet2d(folder: str | Path, variant: str | None = None) -> ImageModel:
    """The network of a ``UNet2DModel`` folder.

    Args:
        folder: with ``config.json`` and weights.
        variant: of the weights, by default the main ones.

    Raises:
        ValueError: if a file is missing or damaged, or an option of the config is unknown
            or has a value that our network does not have; by name.
    """
    folder = Path(folder)
    path = folder / "config.json"
    config = read_object(path)
    check_class(config, path, "UNet2DModel")
    read = (*READ, *VALUES, "attention_head_dim")
    # The number of levels of an embedding that is switched off.
    ignored = ("num_train_timesteps", *AVERAGING)
    known = ("sample_size", "num_class_embeds", "attn_norm_num_groups")
    check_options(config, path, read=read, fixed=OURS, ignored=(*known, *ignored))
    check_options({k: config[k] for k in VALUES}, path, read=(), fixed=VALUES)
    channels = whole(config, "in_channels", path)
    if config["out_channels"] != channels:
        raise ValueError(
            f"{path}: out_channels = {shown(config['out_channels'])} for {channels} in; a "
            "network that predicts more than the noise is not supported"
        )
    network = _network(config, path)
    tensors = {modern(name): value for name, value in read_tensors(folder, variant).items()}
    check_depth(tensors, len(network.widths) * network.blocks, path)
    least = 2 ** (len(network.widths) - 1)
    sides = _sides(config, path)
    if odd := [side for side in sides if side and side % least]:
        raise ValueError(f"{path}: sample_size has {odd[0]}, no multiple of {least}")
    x = jax.ShapeDtypeStruct((least, least, channels), jnp.float32)
    label = jax.ShapeDtypeStruct((network.classes,), jnp.float32)
    arguments = (x, jnp.int32(0), None, label if network.classes else None)
    params = rename(network.init, arguments, tensors, str(folder))
    return ImageModel(network, params, (*sides, channels))


def _network(config: dict[str, Any], path: Path) -> Unet2D:
    """The module of a config."""
    widths = wholes(config, "block_out_channels", path)
    groups = whole(config, "norm_num_groups", path)
    attention = kinds(config, "down_block_types", DOWN, path)
    attention_up = kinds(config, "up_block_types", UP, path)
    middle = config.get("add_attention", True)
    scale = config.get("resnet_time_scale_shift", "default") == "scale_shift"
    given = lambda name: config.get(name) is not None
    optional = lambda name: whole(config, name, path) if given(name) else None
    attention_groups = optional("attn_norm_num_groups")
    if attention_groups is None:
        attention_groups = 0 if scale else groups  # as diffusers has it
    size = optional("attention_head_dim")
    heads = []
    reads = zip(attention, attention_up[::-1], strict=True)
    for i, (width, (down, up)) in enumerate(zip(widths, reads, strict=True)):
        used = down or up or (middle and i == len(widths) - 1)
        if used and size and width % size:
            raise ValueError(
                f"{path}: attention_head_dim = {size} does not divide {width} channels"
            )
        heads.append(width // size if used and size else 1)
    return Unet2D(
        widths=widths,
        blocks=whole(config, "layers_per_block", path),
        attention=attention,
        attention_up=attention_up,
        heads=tuple(heads),
        out_channels=whole(config, "out_channels", path),
        groups=groups,
        eps=float(config["norm_eps"]),
        cosine_first=config["flip_sin_to_cos"],
        freq_shift=int(config["freq_shift"]),
        classes=optional("num_class_embeds") or 0,
        pad_after=config["downsample_padding"] == 0,
        scale=scale,
        middle_attention=middle,
        middle_groups=attention_groups,
    )


def _sides(config: dict[str, Any], path: Path) -> tuple[int | None, int | None]:
    """Height and width, where the config says them."""
    if config.get("sample_size") is None:
        return None, None
    height, width = each(config, "sample_size", 2, path)
    return height, width
