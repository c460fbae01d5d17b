"""Pipelines of the Stable Diffusion v1 family from a Hugging Face folder, without PyTorch.

A folder holds ``text_encoder/``, ``tokenizer/``, ``unet/``, ``vae/`` and ``scheduler/``;
safety checkers and feature extractors are not read.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffreward.diffusion import Prediction, Schedule
from diffreward.interop.lora import merge_lora, read_lora
from diffreward.interop.options import check_options, read_object
from diffreward.interop.renaming import rename
from diffreward.interop.tensors import read_tensors
from diffreward.interop.tokenizer import load_tokenizer
from diffreward.networks.latent import ConditionalUnet2D, Decoder, Encoder, TextEncoder
from diffreward.types import Params

PIPELINES = ("StableDiffusionPipeline", "StableDiffusionPipelineSafe")
Adapt = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
CROSS = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}
CROSS_UP = {"CrossAttnUpBlock2D": True, "UpBlock2D": False}


class Part(NamedTuple):
    """A network and its parameters."""

    network: Any
    params: Params


class StableDiffusion(NamedTuple):
    """Everything between a prompt and a picture."""

    text_encoder: Part
    unet: Part
    encoder: Part
    decoder: Part
    scaling_factor: float
    """Latents of the U-Net are the autoencoder's times this."""
    schedule: Schedule
    prediction: Prediction
    tokenise: Callable[[Sequence[str]], np.ndarray]
    """Maps prompts to identifiers (count, tokens)."""
    latent_shape: tuple[int, int, int]
    """Height, width, channels the model was made for."""


def load_stable_diffusion(
    folder: str | Path,
    *,
    dtype: Any = jnp.float32,
    remat: bool = False,
    lora: str | Path | None = None,
    lora_scale: float = 1.0,
) -> StableDiffusion:
    """Reads a pipeline.

    Args:
        folder: of the pipeline.
        dtype: of the parameters, and so of the computation.
        remat: recompute the U-Net's activations for gradients.
        lora: file of an adaptation to merge (see :func:`read_lora`).
        lora_scale: its strength.

    Raises:
        ValueError: naming the file or folder, for anything missing, damaged or of another
            family.
    """
    folder = Path(folder)
    index = read_object(folder / "model_index.json")
    if index.get("_class_name") not in PIPELINES:
        raise ValueError(
            f"{folder / 'model_index.json'}: a {index.get('_class_name')!r} is not "
            f"supported; {' or '.join(PIPELINES)}"
        )
    for name in ("text_encoder", "tokenizer", "unet", "vae", "scheduler"):
        if not (folder / name).is_dir():
            raise ValueError(f"{folder} lacks the folder {name}")
    added = read_lora(lora) if lora else {}

    def adapt(part: str) -> Adapt:
        changes = added.get(part, {})
        return lambda tensors: merge_lora(tensors, changes, lora_scale, lora or "")

    unet, size = load_unet(folder / "unet", dtype=dtype, remat=remat, adapt=adapt("unet"))
    encoder, decoder, scaling = load_autoencoder(folder / "vae", dtype=dtype)
    text = load_text_encoder(
        folder / "text_encoder", dtype=dtype, adapt=adapt("text_encoder")
    )
    schedule, prediction = load_scheduler(folder / "scheduler")
    channels = decoder.params["params"]["post_quant_conv"]["bias"].shape[0]
    return StableDiffusion(
        text_encoder=text,
        unet=unet,
        encoder=encoder,
        decoder=decoder,
        scaling_factor=scaling,
        schedule=schedule,
        prediction=prediction,
        tokenise=load_tokenizer(folder / "tokenizer", text.network.positions),
        latent_shape=(size, size, channels),
    )


def load_unet(
    folder: Path,
    *,
    dtype: Any = jnp.float32,
    remat: bool = False,
    adapt: Adapt = dict,
) -> tuple[Part, int]:
    """A ``UNet2DConditionModel`` of the v1 family, and the size of its latents.

    ``adapt`` may change the tensors of its file.

    Raises:
        ValueError: see :func:`load_stable_diffusion`.
    """
    path = folder / "config.json"
    config = read_object(path)
    read = (
        "_class_name",
        "in_channels",
        "out_channels",
        "block_out_channels",
        "layers_per_block",
        "down_block_types",
        "up_block_types",
        "attention_head_dim",
        "cross_attention_dim",
        "sample_size",
    )
    fixed = {
        "act_fn": "silu",
        "center_input_sample": False,
        "downsample_padding": 1,
        "mid_block_scale_factor": (1, 1.0),
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "flip_sin_to_cos": (True, False),
        "freq_shift": (0, 1),
        "norm_num_groups": tuple(range(1, 513)),
        "norm_eps": (1e-5, 1e-6),
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
        "upcast_attention": (False, None),
        "dropout": (0, 0.0),
    }
    # The number of heads of an embedding that is switched off.
    ignored = ("addition_embed_type_num_heads",)
    check_options(config, path, read=read, fixed=fixed, ignored=ignored)
    _check_class(config, path, "UNet2DConditionModel")
    widths = tuple(config["block_out_channels"])
    heads = config["attention_head_dim"]
    network = ConditionalUnet2D(
        widths=widths,
        blocks=_whole(config, "layers_per_block", path),
        attention=_kinds(config, "down_block_types", CROSS, path),
        attention_up=_kinds(config, "up_block_types", CROSS_UP, path),
        # The published configs say "dim" and mean the number of heads.
        heads=tuple(heads) if isinstance(heads, list) else (heads,) * len(widths),
        out_channels=config["out_channels"],
        groups=config.get("norm_num_groups", 32),
        eps=config.get("norm_eps", 1e-5),
        cosine_first=config.get("flip_sin_to_cos", True),
        freq_shift=int(config.get("freq_shift", 0)),
        remat=remat,
    )
    size = config["sample_size"]
    least = 2 ** (len(widths) - 1)
    x = jnp.zeros((least, least, config["in_channels"]))
    context = jnp.zeros((1, config["cross_attention_dim"]))
    arguments = (x, jnp.zeros((), jnp.int32), context)
    tensors = adapt(read_tensors(folder))
    params = rename(network.init, arguments, tensors, str(folder), dtype=dtype)
    return Part(network, params), size


def load_autoencoder(folder: Path, *, dtype: Any = jnp.float32) -> tuple[Part, Part, float]:
    """Encoder, decoder and scaling factor of an ``AutoencoderKL``.

    Raises:
        ValueError: see :func:`load_stable_diffusion`.
    """
    path = folder / "config.json"
    config = read_object(path)
    read = (
        "_class_name",
        "in_channels",
        "out_channels",
        "block_out_channels",
        "layers_per_block",
        "latent_channels",
        "down_block_types",
        "up_block_types",
    )
    fixed = {
        "act_fn": "silu",
        "norm_num_groups": tuple(range(1, 513)),
        "scaling_factor": config.get("scaling_factor", 0.18215),
        "mid_block_add_attention": True,
        "use_quant_conv": True,
        "use_post_quant_conv": True,
    }
    ignored = ("sample_size", "force_upcast")
    check_options(config, path, read=read, fixed=fixed, ignored=ignored)
    _check_class(config, path, "AutoencoderKL")
    _kinds(config, "down_block_types", {"DownEncoderBlock2D": True}, path)
    _kinds(config, "up_block_types", {"UpDecoderBlock2D": True}, path)
    widths = tuple(config["block_out_channels"])
    blocks, groups = config["layers_per_block"], config.get("norm_num_groups", 32)
    latent = config["latent_channels"]
    parts = {
        "encoder": (Encoder(widths, blocks, latent, groups), config["in_channels"]),
        "decoder": (Decoder(widths, blocks, config["out_channels"], groups), latent),
    }
    tensors = {_modern(name): value for name, value in read_tensors(folder).items()}
    found = []
    for name, (network, channels) in parts.items():
        own = {
            key.removeprefix(f"{name}."): value
            for key, value in tensors.items()
            if key.startswith((f"{name}.", QUANT[name]))
        }
        least = 2 ** (len(widths) - 1)
        x = jnp.zeros((least, least, channels))
        params = rename(network.init, (x,), own, f"{folder} ({name})", dtype=dtype)
        found.append(Part(network, params))
    return found[0], found[1], float(config.get("scaling_factor", 0.18215))


QUANT = {"encoder": "quant_conv", "decoder": "post_quant_conv"}


def _modern(name: str) -> str:
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
    )
    fixed = {
        "hidden_act": ("quick_gelu", "gelu"),
        "model_type": ("clip_text_model", "clip_text"),
        "max_position_embeddings": config.get("max_position_embeddings", 77),
        "layer_norm_eps": config.get("layer_norm_eps", 1e-5),
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
    check_options(config, path, read=read, fixed=fixed, ignored=ignored)
    network = TextEncoder(
        vocabulary=config["vocab_size"],
        width=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        hidden=config["intermediate_size"],
        positions=config.get("max_position_embeddings", 77),
        activation=config.get("hidden_act", "quick_gelu"),
        eps=config.get("layer_norm_eps", 1e-5),
    )
    tensors = {}
    for name, value in adapt(read_tensors(folder)).items():
        if name.endswith("position_ids"):  # a constant that older files carry along
            continue
        for prefix in ("text_model.", "embeddings.", "encoder."):
            name = name.removeprefix(prefix)
        tensors[name] = value
    ids = jnp.zeros((1,), jnp.int32)
    return Part(network, rename(network.init, (ids,), tensors, str(folder), dtype=dtype))


def make_prompt_encoder(
    pipeline: StableDiffusion,
) -> Callable[[Sequence[str]], Float[Array, "prompts tokens width"]]:
    """Maps prompts to what the U-Net reads of each; compiled once per number of them."""
    text = pipeline.text_encoder
    encode = jax.jit(jax.vmap(lambda row: text.network.apply(text.params, row)))
    return lambda prompts: encode(jnp.asarray(pipeline.tokenise(prompts), jnp.int32))


def _check_class(config: dict[str, Any], path: Path, name: str) -> None:
    if config["_class_name"] != name:
        raise ValueError(
            f"{path}: a {config['_class_name']!r} is not supported; only {name!r}"
        )


def _kinds(
    config: dict[str, Any], name: str, known: dict[str, bool], path: Path
) -> tuple[bool, ...]:
    found = config[name]
    if len(found) != len(config["block_out_channels"]):
        raise ValueError(f"{path}: {name} and block_out_channels differ in length")
    for kind in found:
        if kind not in known:
            raise ValueError(
                f"{path}: {name} has {kind!r}, which is not supported; {', '.join(known)}"
            )
    return tuple(known[kind] for kind in found)


def _whole(config: dict[str, Any], name: str, path: Path) -> int:
    if not isinstance(config[name], int):
        raise ValueError(f"{path}: {name} = {config[name]!r} is not supported; one number")
    return config[name]
