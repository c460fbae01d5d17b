"""Writes a pipeline of the Stable Diffusion v1 family as a Hugging Face folder."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save

from diffreward import files
from diffreward.interop.latent import Part
from diffreward.interop.renaming import foreign_name
from diffreward.interop.tokenizer import END, START
from diffreward.types import Params

POINTS = re.compile(r"(conv_shortcut|proj_in|proj_out|quant_conv)\.weight$")
"""Convolutions of one pixel, which are linear maps of ours."""
WEIGHTS = "diffusion_pytorch_model.safetensors"
CONCEPT = "_safety_concept"
"""Of ``model_index.json``: what a pipeline's safety guidance is to keep away from, where it
is another than the published concept. Other readers leave such names out."""


class Pipeline(NamedTuple):
    """What is written; networks and parameters are ours."""

    text_encoder: Part
    unet: Part
    encoder: Part
    decoder: Part
    vocabulary: dict[str, int]
    """Of the tokenizer, with its two special tokens."""
    merges: list[str]
    """Of the tokenizer: two parts of a word, by a space."""
    scaling_factor: float
    latent_side: int
    scheduler: dict[str, Any]
    """``scheduler_config.json``."""
    concept: str = ""
    """Of the safety guidance."""


def save_pipeline(folder: str | Path, pipeline: Pipeline, *, replace: bool = False) -> None:
    """Writes a folder that ``diffusers.StableDiffusionPipeline.from_pretrained`` loads.

    Raises:
        FileExistsError: if the folder exists and is not to be replaced.
    """
    with files.writing(folder, replace=replace) as made:
        made.mkdir()
        for name, write in PARTS.items():
            (made / name).mkdir()
            write(made / name, pipeline)
        index = {
            "_class_name": "StableDiffusionPipeline",
            "feature_extractor": [None, None],
            "requires_safety_checker": False,
            "safety_checker": [None, None],
            "scheduler": ["diffusers", pipeline.scheduler["_class_name"]],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        }
        told = {CONCEPT: pipeline.concept} if pipeline.concept else {}
        _json(made / "model_index.json", index | told)


def foreign_tensors(params: Params, name: Callable[[str], str]) -> dict[str, np.ndarray]:
    """Tensors in PyTorch's layout.

    Args:
        params: of a module whose submodules carry the foreign names.
        name: the name in the file of a name without prefix.
    """
    tensors = {}
    for ours, value in flatten_dict(params["params"], sep="/").items():
        theirs, array = foreign_name(ours), np.asarray(value, np.float32)
        if ours.endswith("/kernel"):
            array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
            if POINTS.search(theirs):
                array = array[:, :, None, None]
        tensors[name(theirs)] = np.ascontiguousarray(array)
    return tensors


def _unet(folder: Path, pipeline: Pipeline) -> None:
    network, params = pipeline.unet
    kinds = lambda own, name: [f"CrossAttn{name}" if a else name for a in own]
    config = {
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "attention_head_dim": list(network.heads),
        "block_out_channels": list(network.widths),
        "center_input_sample": False,
        "cross_attention_dim": pipeline.text_encoder.network.width,
        "down_block_types": kinds(network.attention, "DownBlock2D"),
        "downsample_padding": 1,
        "flip_sin_to_cos": network.cosine_first,
        "freq_shift": network.freq_shift,
        "in_channels": network.out_channels,
        "layers_per_block": network.blocks,
        "mid_block_scale_factor": 1,
        "norm_eps": network.eps,
        "norm_num_groups": network.groups,
        "out_channels": network.out_channels,
        "sample_size": pipeline.latent_side,
        "up_block_types": kinds(network.attention_up, "UpBlock2D"),
    }
    _json(folder / "config.json", config)
    _weights(folder / WEIGHTS, foreign_tensors(params, lambda n: n))


def _vae(folder: Path, pipeline: Pipeline) -> None:
    encoder, decoder = pipeline.encoder, pipeline.decoder
    widths = list(encoder.network.widths)
    config = {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "in_channels": decoder.network.out_channels,
        "latent_channels": encoder.network.latent_channels,
        "layers_per_block": encoder.network.blocks,
        "norm_num_groups": encoder.network.groups,
        "out_channels": decoder.network.out_channels,
        "sample_size": pipeline.latent_side * 2 ** (len(widths) - 1),
        "scaling_factor": pipeline.scaling_factor,
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
    }
    _json(folder / "config.json", config)
    inside = lambda part: lambda n: n if "quant_conv" in n else f"{part}.{n}"
    tensors = foreign_tensors(encoder.params, inside("encoder"))
    _weights(folder / WEIGHTS, tensors | foreign_tensors(decoder.params, inside("decoder")))


def _text_encoder(folder: Path, pipeline: Pipeline) -> None:
    network, params = pipeline.text_encoder
    end = pipeline.vocabulary[END]
    config = {
        "architectures": ["CLIPTextModel"],
        "bos_token_id": pipeline.vocabulary[START],
        "eos_token_id": end,
        "hidden_act": network.activation,
        "hidden_size": network.width,
        "intermediate_size": network.hidden,
        "layer_norm_eps": network.eps,
        "max_position_embeddings": network.positions,
        "model_type": "clip_text_model",
        "num_attention_heads": network.heads,
        "num_hidden_layers": network.layers,
        "pad_token_id": end,
        "vocab_size": network.vocabulary,
    }

    def name(theirs: str) -> str:
        kind = {"layers": "encoder.", "token_embedding": "embeddings."}
        kind["position_embedding"] = kind["token_embedding"]
        return f"text_model.{kind.get(theirs.split('.')[0], '')}{theirs}"

    _json(folder / "config.json", config)
    _weights(folder / "model.safetensors", foreign_tensors(params, name))


def _tokenizer(folder: Path, pipeline: Pipeline) -> None:
    tokens = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    config = {
        "model_max_length": pipeline.text_encoder.network.positions,
        "tokenizer_class": "CLIPTokenizer",
    }
    _json(folder / "vocab.json", pipeline.vocabulary)
    merges = "\n".join(["#version: 0.2", *pipeline.merges])
    files.write_text(folder / "merges.txt", f"{merges}\n")
    _json(folder / "special_tokens_map.json", tokens)
    _json(folder / "tokenizer_config.json", tokens | config)


def _scheduler(folder: Path, pipeline: Pipeline) -> None:
    _json(folder / "scheduler_config.json", pipeline.scheduler)


PARTS: dict[str, Callable[[Path, Pipeline], None]] = {
    "scheduler": _scheduler,
    "text_encoder": _text_encoder,
    "tokenizer": _tokenizer,
    "unet": _unet,
    "vae": _vae,
}


def _json(path: Path, value: dict[str, Any]) -> None:
    files.write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _weights(path: Path, tensors: dict[str, np.ndarray]) -> None:
    files.write_bytes(path, save(tensors, metadata={"format": "pt"}))
