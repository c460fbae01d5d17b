"""Folders of a ``UNet2DModel``: against diffusers, and what is refused without it."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from diffreward.diffusion import linear
from diffreward.interop import load_model, save_scheduler
from diffreward.interop.image_unet import load_unet2d
from diffreward.interop.renaming import foreign_name
from diffreward.networks.latent import Unet2D
from tests.fuzz.damage import damaged, outcome
from tests.networks.reference import random_params

CONFIG = {
    "_class_name": "UNet2DModel",
    "_diffusers_version": "0.30.0",
    "act_fn": "silu",
    "attention_head_dim": 4,
    "block_out_channels": [8, 16],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 3,
    "layers_per_block": 1,
    "norm_eps": 1e-5,
    "norm_num_groups": 4,
    "out_channels": 3,
    "sample_size": 8,
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}
GONE = object()


@pytest.fixture(autouse=True)
def _flax_promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def random_network(classes=0, seed=0):
    """The network of ``CONFIG`` with random parameters."""
    network = Unet2D(
        (8, 16), 1, (False, True), (True, False), (1, 4), 3, groups=4, classes=classes
    )
    arguments = [jnp.zeros((8, 8, 3)), jnp.int32(0), None]
    label = [jnp.zeros(classes)] if classes else []
    return network, random_params(network, *arguments, *label, seed=seed)


def write_folder(folder, params, **changes):
    """A pipeline folder as diffusers writes it; returns it."""
    (folder / "unet").mkdir(parents=True)
    config = {k: v for k, v in (CONFIG | changes).items() if v is not GONE}
    (folder / "unet/config.json").write_text(json.dumps(config))
    tensors = {}
    for name, value in flatten_dict(params["params"], sep="/").items():
        array = np.asarray(value)
        if name.endswith("/kernel"):
            array = array.T if array.ndim == 2 else array.transpose(3, 2, 0, 1)
        # A shortcut is a convolution of one pixel there.
        if name.endswith("conv_shortcut/kernel"):
            array = array[:, :, None, None]
        tensors[foreign_name(name)] = np.ascontiguousarray(array)
    save_file(tensors, folder / "unet/diffusion_pytorch_model.safetensors")
    save_scheduler(folder / "scheduler", linear(20), "eps")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        _, params = random_network()
    return write_folder(tmp_path_factory.mktemp("images") / "plain", params)


def test_a_network_is_read_back(folder):
    network, params = random_network()
    found = load_unet2d(folder / "unet")
    assert found.shape == (8, 8, 3)
    jax.tree.map(np.testing.assert_array_equal, found.params, params)
    x = jax.random.normal(jax.random.key(1), (8, 8, 3))
    model = load_model(folder)
    assert (model.shape, model.told, model.prediction) == ((8, 8, 3), (), "eps")
    np.testing.assert_array_equal(
        model.apply(x, jnp.int32(7)), network.apply(params, x, jnp.int32(7))
    )


def test_a_label_decides_the_answer(tmp_path):
    _, params = random_network(classes=3)
    model = load_model(write_folder(tmp_path / "c", params, num_class_embeds=3))
    assert [part.shape for part in model.told] == [(3,)]
    x = jax.random.normal(jax.random.key(1), (8, 8, 3))
    answers = [np.asarray(model.apply(x, jnp.int32(7), row)) for row in jnp.eye(3)]
    assert min(np.abs(a - b).max() for a, b in zip(answers, answers[1:], strict=False)) > 0


REFUSED = {
    "another class": ({"_class_name": "UNet3DModel"}, "a 'UNet3DModel' is not supported"),
    "no heads": ({"attention_head_dim": GONE}, "lacks attention_head_dim"),
    "odd heads": ({"attention_head_dim": 5}, "attention_head_dim = 5 does not divide 16"),
    "heads of nothing": ({"attention_head_dim": 0}, "attention_head_dim = 0 is not"),
    "variance": ({"out_channels": 6}, "out_channels = 6 for 3 in"),
    "fourier": ({"time_embedding_type": "fourier"}, "time_embedding_type = 'fourier'"),
    "other blocks": ({"down_block_types": ["DownBlock2D", "SkipDownBlock2D"]}, "SkipDown"),
    "one block": ({"up_block_types": ["UpBlock2D"]}, "differ in length"),
    "centred": ({"center_input_sample": True}, "center_input_sample = True is not"),
    "resnets": ({"downsample_type": "resnet"}, "downsample_type = 'resnet' is not"),
    "padding": ({"downsample_padding": 2}, "downsample_padding = 2 is not supported"),
    "no attention": ({"add_attention": "no"}, "add_attention = 'no' is not supported"),
    "scaled": ({"mid_block_scale_factor": 1.4}, "mid_block_scale_factor = 1.4 is not"),
    "learned classes": ({"class_embed_type": "timestep"}, "class_embed_type = 'timestep'"),
    "classes": ({"num_class_embeds": 3}, "lacks the tensor class_embedding.weight"),
    "unknown": ({"gate": 3}, "unknown option gate = 3"),
    "odd size": ({"sample_size": 9}, "sample_size has 9, no multiple of 2"),
    "no size": ({"sample_size": [8, 8, 8]}, "has not 2 numbers"),
    "many blocks": ({"layers_per_block": 10**6}, "describes 2,000,000 blocks"),
    "other widths": ({"block_out_channels": [8, 32]}, "does not fit"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_our_network_does_not_have_is_refused_by_name(name, folder, tmp_path):
    changes, message = REFUSED[name]
    copied = shutil.copytree(folder, tmp_path / "m")
    path = copied / "unet/config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not GONE}))
    with pytest.raises(ValueError, match=message) as caught:
        load_model(copied)
    assert "m/unet" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pipeline_of_latents_is_no_model_of_pixels(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "m")
    (copied / "vqvae").mkdir()
    with pytest.raises(ValueError, match="sees latents of vqvae/, no pixels"):
        load_model(copied)


def test_an_open_size_takes_any_image(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "m")
    path = copied / "unet/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sample_size": None}))
    model = load_model(copied)
    assert model.shape == (None, None, 3)
    model.check_shape((4, 6, 3), "m")
    message = r"m is a model of samples shaped \(height, width, 3\), .* shaped \(3, 8, 8\)"
    with pytest.raises(ValueError, match=message):
        model.check_shape((3, 8, 8), "m")


def test_damaged_configs_never_end_in_a_traceback(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "m")
    path = copied / "unet/config.json"
    whole, refused = path.read_bytes(), 0
    for _, data in damaged(whole, np.random.default_rng(3), 60):
        path.write_bytes(data)
        refused += outcome(lambda: load_model(copied), path) is not None
    assert refused > 20


KINDS = {
    "attention": {},
    "ddpm": {
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "norm_eps": 1e-6,
        "attention_head_dim": None,
    },
    "scale and shift": {"resnet_time_scale_shift": "scale_shift"},
    "groups of attention": {"attn_norm_num_groups": 2},
    "no attention": {
        "add_attention": False,
        "down_block_types": ["DownBlock2D"] * 3,
        "up_block_types": ["UpBlock2D"] * 3,
    },
    "classes": {"num_class_embeds": 5},
}


@pytest.mark.parity
@pytest.mark.parametrize("name", KINDS)
def test_networks_equal_their_original(name, tmp_path):
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    options = {
        "sample_size": (8, 12),
        "in_channels": 2,
        "out_channels": 2,
        "block_out_channels": (8, 16, 16),
        "layers_per_block": 2,
        "norm_num_groups": 4,
        "attention_head_dim": 4,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D"),
    } | KINDS[name]
    module = diffusers.UNet2DModel(**options).eval()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.05 * torch.randn_like(p))
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=50)
    kind = diffusers.DDPMPipeline
    if name == "classes":
        module.save_pretrained(tmp_path / "unet")
        scheduler.save_pretrained(tmp_path / "scheduler")
    else:
        kind(unet=module, scheduler=scheduler).save_pretrained(tmp_path)
    model = load_model(tmp_path)
    assert model.shape == (8, 12, 2)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 2, 8, 12)).astype(np.float32)
    t = np.array([0, 13, 49])
    labels = np.array([0, 4, 2])
    with torch.no_grad():
        told = {"class_labels": torch.tensor(labels)} if name == "classes" else {}
        wanted = module(torch.tensor(x), torch.tensor(t), **told).sample.numpy()
    one_hot = (np.eye(5, dtype=np.float32)[labels],) if name == "classes" else ()
    found = jax.vmap(model.apply)(jnp.asarray(x.transpose(0, 2, 3, 1)), t, *one_hot)
    np.testing.assert_allclose(
        np.asarray(found).transpose(0, 3, 1, 2), wanted, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parity
def test_attention_of_the_first_versions_has_other_names(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "m")
    path = copied / "unet/diffusion_pytorch_model.safetensors"
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def renamed(name):
        if ".attentions." in name:
            for new, old in older.items():
                name = name.replace(f".{new}.", f".{old}.")
        return name

    save_file({renamed(k): v for k, v in load_file(path).items()}, path)
    assert any("query" in name for name in load_file(path))
    x = jax.random.normal(jax.random.key(1), (8, 8, 3))
    found, wanted = (load_model(f).apply(x, jnp.int32(3)) for f in (copied, folder))
    np.testing.assert_array_equal(found, wanted)
