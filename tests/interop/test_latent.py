"""Networks of latent diffusion from folders written here, without the libraries' help."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from diffreward.interop.latent import load_text_encoder, load_unet
from diffreward.interop.renaming import foreign_name
from diffreward.networks.latent import TextEncoder
from tests.fuzz.damage import damaged, outcome
from tests.networks.reference import random_params

CONFIG = {
    "vocab_size": 20,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 6,
    "layer_norm_eps": 1e-5,
    "hidden_act": "quick_gelu",
    "model_type": "clip_text_model",
    "architectures": ["CLIPTextModel"],
}
UNET = {
    "_class_name": "UNet2DConditionModel",
    "act_fn": "silu",
    "attention_head_dim": 1,
    "block_out_channels": [32, 32],
    "cross_attention_dim": 8,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 1,
    "norm_eps": 1e-5,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 8,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}
GONE = object()


@pytest.fixture(autouse=True)
def _flax_promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def write(folder, config, tensors=None, **changes):
    folder.mkdir(exist_ok=True)
    config = {k: v for k, v in (config | changes).items() if v is not GONE}
    (folder / "config.json").write_text(json.dumps(config))
    if tensors is not None:
        save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def text():
    """A text encoder, and its tensors under their foreign names."""
    network = TextEncoder(20, 8, 2, 2, 12, 6, "quick_gelu", 1e-5)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        params = random_params(network, jnp.zeros((1,), jnp.int32))
    tensors = {}
    for name, value in flatten_dict(params["params"], sep="/").items():
        array = np.asarray(value)
        transposed = name.endswith("/kernel")
        tensors[foreign_name(name)] = np.ascontiguousarray(array.T if transposed else array)
    return params, tensors


def test_a_text_encoder_is_read_back(text, tmp_path):
    params, tensors = text
    wrapped = {f"_orig_mod.text_model.{name}": value for name, value in tensors.items()}
    found = load_text_encoder(write(tmp_path / "text", CONFIG, wrapped))
    jax.tree.map(np.testing.assert_array_equal, found.params, params)


TEXTS = {
    "no activation": ({"hidden_act": GONE}, "lacks hidden_act"),
    "no length": ({"max_position_embeddings": GONE}, "lacks max_position_embeddings"),
    "no kind": ({"model_type": GONE}, "lacks model_type"),
    "another kind": ({"model_type": "t5"}, "model_type = 't5' is not supported"),
    "half a layer": ({"num_hidden_layers": 1.5}, "num_hidden_layers = 1.5 is not"),
    "no layer": ({"num_hidden_layers": 0}, "num_hidden_layers = 0 is not"),
    "many layers": ({"num_hidden_layers": 10**6}, "describes 1,000,000 blocks"),
    "too many": ({"num_hidden_layers": 10**9}, "num_hidden_layers = 1000000000 is not"),
    "text": ({"hidden_size": "8"}, "hidden_size = '8' is not supported"),
    "three heads": ({"num_attention_heads": 3}, "the config's sizes do not fit"),
    "another vocabulary": ({"vocab_size": 21}, "has shape"),
    "no number": ({"layer_norm_eps": float("nan")}, "layer_norm_eps = nan is no number"),
    "unknown": ({"gate": 3}, "unknown option gate = 3"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_configs_of_text_encoders_are_complete_and_plain(name, text, tmp_path):
    changes, message = TEXTS[name]
    folder = write(tmp_path / "text", CONFIG, text[1], **changes)
    with pytest.raises(ValueError, match=message) as caught:
        load_text_encoder(folder)
    assert "text" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_that_are_no_numbers_are_refused(text, tmp_path):
    name = "final_layer_norm.weight"
    tensors = text[1] | {name: np.full(8, np.inf, np.float32)}
    with pytest.raises(ValueError, match=f"{name} has numbers that are NaN or infinite"):
        load_text_encoder(write(tmp_path / "text", CONFIG, tensors))


def test_damaged_folders_are_refused_or_read(text, tmp_path):
    folder, rng = write(tmp_path / "text", CONFIG, text[1]), np.random.default_rng(4)
    for name in ("config.json", "model.safetensors"):
        path, refused = folder / name, 0
        whole = path.read_bytes()
        for _, data in damaged(whole, rng, 30):
            path.write_bytes(data)
            refused += outcome(lambda: load_text_encoder(folder), folder) is not None
        path.write_bytes(whole)
        assert refused > 10


UNETS = {
    "no class": ({"_class_name": GONE}, "lacks _class_name"),
    "no groups": ({"norm_num_groups": GONE}, "lacks norm_num_groups"),
    "no activation": ({"act_fn": GONE}, "lacks act_fn"),
    "no order of sine and cosine": ({"flip_sin_to_cos": GONE}, "lacks flip_sin_to_cos"),
    "one for true": ({"flip_sin_to_cos": 1}, "flip_sin_to_cos = 1 is not supported"),
    "widths a number": ({"block_out_channels": 32}, "block_out_channels = 32 is no list"),
    "negative": ({"block_out_channels": [32, -1]}, "block_out_channels = -1 is not"),
    "types a word": ({"down_block_types": "DownBlock2D"}, "differ in length"),
    "types of lists": ({"down_block_types": [[], {}]}, r"down_block_types has \[\]"),
    "deep": (
        {
            "block_out_channels": [32] * 14,
            "down_block_types": ["DownBlock2D"] * 14,
            "up_block_types": ["UpBlock2D"] * 14,
        },
        "describes 14 blocks, the weights beside it have 1 tensors",
    ),
    "endless": ({"layers_per_block": 10**5}, "describes 200,000 blocks"),
    "three sides": ({"sample_size": [8, 8, 8]}, "sample_size = .* has not 2 numbers"),
    "heads": ({"attention_head_dim": [1]}, "attention_head_dim = .* has not 2 numbers"),
    "nested": ({"sample_size": [[8], [[]]]}, r"sample_size = \[8\] is not"),
}


@pytest.mark.parametrize("name", UNETS)
def test_configs_of_unets_are_checked_before_anything_is_made(name, tmp_path):
    changes, message = UNETS[name]
    tensors = {"conv_in.bias": np.zeros(32, np.float32)}
    folder = write(tmp_path / "unet", UNET, tensors, **changes)
    found = outcome(lambda: load_unet(folder), folder, memory=16 * 2**20)
    assert found is not None
    assert re.search(message, found), found


@pytest.mark.parametrize(
    "changes",
    [
        {"upcast_attention": True},
        {"sample_size": [8, 16]},
        {"decay": 0.9999, "power": 0.66, "update_after_step": 0, "use_ema_warmup": False},
        {"class_embed_type": None},
    ],
)
def test_options_that_change_no_number_are_let_through(changes, tmp_path):
    tensors = {f"t{i}": np.zeros(1, np.float32) for i in range(9)}
    folder = write(tmp_path / "unet", UNET, tensors, **changes)
    # What is missed then are the weights, not the option.
    with pytest.raises(ValueError, match="lacks the tensor"):
        load_unet(folder)


def test_half_precision_keeps_its_own_options(tmp_path):
    folder = write(tmp_path / "unet", UNET, {"a": np.zeros(1)}, upcast_attention=True)
    with pytest.raises(ValueError, match="upcast_attention = True is not supported"):
        load_unet(folder, dtype=jnp.bfloat16)
