"""Networks of the Stable Diffusion v1 family from their folders, each with its config.

Every option that decides numbers must be there; what later versions added counts as the
value that the first version had.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffreward.interop.options import (
    AVERAGING,
    check_class,
    check_options,
    number,
    read_object,
    shown,
    whole,
    wholes,
)
from diffreward.interop.renaming import rename
from diffreward.interop.tensors import read_tensors
from diffreward.networks.latent import Decoder, Encoder, TextEncoder, Unet2D
from diffreward.types import Params

Adapt = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]
CROSS = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}
CROSS_UP = {"CrossAttnUpBlock2D": True, "UpBlock2D": False}
READ = (
    "_class_name",
    "in_channels",
    "out_channels",
    "block_out_channels",
    "layers_per_block",
    "down_block_types",
    "up_block_types",
    "act_fn",
    "norm_num_groups",
)
"""Options of every convolutional network of the family."""


class Part(NamedTuple):
    """A network and its parameters."""

    network: Any
    params: Params


def load_unet(
    folder: Path,
    *,
    dtype: Any = jnp.float32,
    remat: bool = False,
    adapt: Adapt = dict,
) -> tuple[Part, tuple[int, int]]:
    """A ``UNet2DConditionModel`` of the v1 family; height and width of its latents.

    ``adapt`` may change the tensors of its file.

    Raises:
        ValueError: see :func:`load_stable_diffusion`.
    """
    path = folder / "config.json"
    config = read_object(path)
    read = (
        *READ,
        "attention_head_dim",
        "cross_attention_dim",
        "sample_size",
        "flip_sin_to_cos",
        "freq_shift",
        "norm_eps",
    )
    values = {
        "act_fn": "silu",
        "flip_sin_to_cos": (True, False),
        "freq_shift": (0, 1),
        "norm_eps": (1e-5, 1e-6),
    }
    fixed = {
        "center_input_sample": False,
        "downsample_padding": 1,
        "mid_block_scale_factor": (1, 1.0),
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "use_linear_projection": (True, False),
        "only_cross_attention": False,
        "dual_cross_attention": False,
        "resnet_time_scale_shift": "default",
        "resnet_skip_time_act": False,
        "resnet_out_scale_factor": (1, 1.0),
        "time_embedding_type": "positional",
        "transformer_layers_per_block": 1,
        "conv_in_kernel": 3,
        "conv_out_kernel": 3,
        "attention_type": "default",
        # It changes the precision of half-precision networks alone.
        "upcast_attention": (False, None, *((True,) if dtype == jnp.float32 else ())),
        "dropout": (0, 0.0),
    }
    # The number of heads of an embedding that is switched off.
    ignored = ("addition_embed_type_num_heads", *AVERAGING)
    check_class(config, path, "UNet2DConditionModel")
    check_options(config, path, read=read, fixed=fixed, ignored=ignored)
    check_options({k: config[k] for k in values}, path, read=(), fixed=values)
    widths = wholes(config, "block_out_channels", path)
    heads = each(config, "attention_head_dim", len(widths), path)
    groups = whole(config, "norm_num_groups", path)
    context_dim = whole(config, "cross_attention_dim", path)
    in_channels = whole(config, "in_channels", path)
    network = Unet2D(
        widths=widths,
        blocks=whole(config, "layers_per_block", path),
        attention=kinds(config, "down_block_types", CROSS, path),
        attention_up=kinds(config, "up_block_types", CROSS_UP, path),
        # The published configs say "dim" and mean the number of heads.
        heads=heads,
        out_channels=whole(config, "out_channels", path),
        groups=groups,
        eps=float(config["norm_eps"]),
        cosine_first=config["flip_sin_to_cos"],
        freq_shift=int(config["freq_shift"]),
        remat=remat,
    )
    size = each(config, "sample_size", 2, path)
    tensors = adapt(read_tensors(folder))
    check_depth(tensors, len(widths) * network.blocks, path)
    least = 2 ** (len(widths) - 1)
    arguments = (
        jax.ShapeDtypeStruct((least, least, in_channels), jnp.float32),
        jax.ShapeDtypeStruct((), jnp.int32),
        jax.ShapeDtypeStruct((1, context_dim), jnp.float32),
    )
    params = rename(network.init, arguments, tensors, str(folder), dtype=dtype)
    return Part(network, params), (size[0], size[1])


def load_autoencoder(folder: Path, *, dtype: Any = jnp.float32) -> tuple[Part, Part, float]:
    """Encoder, decoder and scaling factor of an ``AutoencoderKL``.

    Raises:
        ValueError: see :func:`load_stable_diffusion`.
    """
    path = folder / "config.json"
    config = read_object(path)
    read = (*READ, "latent_channels", "scaling_factor")
    fixed = {
        "mid_block_add_attention": True,
        "use_quant_conv": True,
        "use_post_quant_conv": True,
    }
    ignored = ("sample_size", "force_upcast", *AVERAGING)
    # The first versions did not write these two down.
    config = {"norm_num_groups": 32, "scaling_factor": 0.18215} | config
    check_class(config, path, "AutoencoderKL")
    check_options(config, path, read=read, fixed=fixed, ignored=ignored)
    check_options({"act_fn": config["act_fn"]}, path, read=(), fixed={"act_fn": "silu"})
    kinds(config, "down_block_types", {"DownEncoderBlock2D": True}, path)
    kinds(config, "up_block_types", {"UpDecoderBlock2D": True}, path)
    scaling = number(config, "scaling_factor", path)
    widths = wholes(config, "block_out_channels", path)
    blocks, groups, latent, pixels_in, pixels_out = (
        whole(config, name, path)
        for name in (
            *("layers_per_block", "norm_num_groups", "latent_channels"),
            *("in_channels", "out_channels"),
        )
    )
    parts = {
        "encoder": (Encoder(widths, blocks, latent, groups), pixels_in),
        "decoder": (Decoder(widths, blocks, pixels_out, groups), latent),
    }
    tensors = {modern(name): value for name, value in read_tensors(folder).items()}
    check_depth(tensors, len(widths) * blocks, path)
    found = []
    for name, (network, channels) in parts.items():
        own = {
            key.removeprefix(f"{name}."): value
            for key, value in tensors.items()
            if key.startswith((f"{name}.", QUANT[name]))
        }
        least = 2 ** (len(widths) - 1)
        x = jax.ShapeDtypeStruct((least, least, channels), jnp.float32)
        params = rename(network.init, (x,), own, f"{folder} ({name})", dtype=dtype)
        found.append(Part(network, params))
    return found[0], found[1], scaling


QUANT = {"encoder": "quant_conv", "decoder": "post_quant_conv"}


def modern(name: str) -> str:
    """Attention of the first checkpoints had other names."""
    if ".attentions." not in name:
        return name
    older = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    *path, part, leaf = name.split(".")
    return ".".join([*path, older.get(part, part), leaf])


def load_text_encoder(
    folder: Path, *, dtype: Any = jnp.float32, adapt: Adapt = dict
) -> Part:
    """A ``CLIPTextModel``; ``adapt`` may change the tensors of its file.

    Raises:
        ValueError: see :func:`load_stable_diffusion`.
    """
    path = folder / "config.json"
    config = read_object(path)
    read = (
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "num_hidden_layers",
        "vocab_size",
        "max_position_embeddings",
        "layer_norm_eps",
        "hidden_act",
        "model_type",
    )
    values = {
        "hidden_act": ("quick_gelu", "gelu"),
        "model_type": ("clip_text_model", "clip_text"),
    }
    ignored = (
        "architectures",
        "attention_dropout",
        "bos_token_id",
        "dropout",
        "dtype",
        "eos_token_id",
        "initializer_factor",
        "initializer_range",
        "pad_token_id",
        "projection_dim",
        "torch_dtype",
        "transformers_version",
        "tie_word_embeddings",
        "return_dict",
        "output_hidden_states",
        "output_attentions",
        "use_cache",
        "chunk_size_feed_forward",
        "is_encoder_decoder",
        "id2label",
        "label2id",
        "problem_type",
    )
    check_options(config, path, read=read, fixed={}, ignored=ignored)
    check_options({k: config[k] for k in values}, path, read=(), fixed=values)
    network = TextEncoder(
        vocabulary=whole(config, "vocab_size", path),
        width=whole(config, "hidden_size", path),
        layers=whole(config, "num_hidden_layers", path),
        heads=whole(config, "num_attention_heads", path),
        hidden=whole(config, "intermediate_size", path),
        positions=whole(config, "max_position_embeddings", path, least=3),
        activation=config["hidden_act"],
        eps=number(config, "layer_norm_eps", path),
    )
    tensors = {}
    for name, value in adapt(read_tensors(folder)).items():
        if name.endswith("position_ids"):  # a constant that older files carry along
            continue
        for prefix in ("text_model.", "embeddings.", "encoder."):
            name = name.removeprefix(prefix)
        tensors[name] = value
    check_depth(tensors, network.layers, path)
    ids = jax.ShapeDtypeStruct((1,), jnp.int32)
    return Part(network, rename(network.init, (ids,), tensors, str(folder), dtype=dtype))


def kinds(
    config: dict[str, Any], name: str, known: dict[str, bool], path: Path
) -> tuple[bool, ...]:
    """Kinds of blocks, stage by stage: what ``known`` says of each.

    Raises:
        ValueError: for one that it does not know, or another number of them.
    """
    found = config[name]
    if not isinstance(found, list) or len(found) != len(config["block_out_channels"]):
        raise ValueError(f"{path}: {name} and block_out_channels differ in length")
    for kind in found:
        if not isinstance(kind, str) or kind not in known:
            raise ValueError(
                f"{path}: {name} has {shown(kind)}, which is not supported; "
                f"{', '.join(known)}"
            )
    return tuple(known[kind] for kind in found)


def each(config: dict[str, Any], name: str, count: int, path: Path) -> tuple[int, ...]:
    """One whole number, or a list with one for each.

    Raises:
        ValueError: for anything else.
    """
    if not isinstance(config[name], list):
        return (whole(config, name, path),) * count
    found = wholes(config, name, path)
    if len(found) != count:
        raise ValueError(f"{path}: {name} = {found} has not {count} numbers")
    return found


def check_depth(tensors: Mapping[str, np.ndarray], blocks: int, path: Path) -> None:
    """Refuses a config of a network too deep for its weights, before it is made.

    Raises:
        ValueError: naming both numbers.
    """
    if blocks > len(tensors):
        raise ValueError(
            f"{path} describes {blocks:,} blocks, the weights beside it have "
            f"{len(tensors)} tensors"
        )
