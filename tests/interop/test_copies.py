"""Checkpoints as trainers leave them: copies, wrappers, nesting, and what is said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.diffusion import cosine
from diffreward.interop import load_model, load_unet, read_state_dict
from diffreward.interop.diffuser import _dialect
from diffreward.interop.layout import from_params, unet_table
from diffreward.networks import TemporalUnet
from tests.interop.torch_file import save_torch
from tests.networks.reference import random_params

NETWORK = TemporalUnet(8, (1, 2))
PARAMS = random_params(NETWORK, jnp.zeros((4, 3)), jnp.int32(0))
PLAIN = from_params(unet_table(_dialect(2), [8, 16], 3, attention=False), PARAMS)
OTHER = {name: 2 * value for name, value in PLAIN.items()}
BETAS = {"betas": np.asarray(cosine(5).beta, np.float32)}


def under(prefix, tensors):
    return {prefix + name: value for name, value in tensors.items()}


def flat(tensors, prefix=""):
    """As Diffuser saves its object: the network, and the schedule beside it."""
    return under(f"{prefix}model.", tensors) | under(prefix, BETAS)


ADAM = {"state": {0: {"exp_avg": PLAIN["time_mlp.1.weight"], "step": 3}}, "groups": [{}]}
ONE = {
    "plain": flat(PLAIN),
    "betas among the tensors": PLAIN | BETAS,
    "parallel": under("module.", flat(PLAIN)),
    "parallel inside": flat(under("module.", PLAIN)),
    "compiled": under("_orig_mod.", flat(PLAIN)),
    "compiled and parallel": under("_orig_mod.module.", flat(PLAIN)),
    "sharded": under("_fsdp_wrapped_module.", flat(PLAIN)),
    "nested": under("diffusion.net.unet.", flat(PLAIN)),
    "step and model": {"step": 3, "model": flat(PLAIN), "loss": np.float32(0.5)},
    "params": {"params": flat(PLAIN)},
    "betas at the top": {"net": PLAIN, **BETAS},
    "lightning": {
        "epoch": 1,
        "state_dict": under("model.", flat(PLAIN)),
        "optimizer_states": [ADAM],
        "callbacks": {"ModelCheckpoint": {"best": "x.ckpt", "score": np.float64(1)}},
        "hyper_parameters": {"lr": 1e-3},
    },
}
SEVERAL = {
    "diffuser": ({"step": 3, "model": flat(OTHER), "ema": flat(PLAIN)}, "model", "ema"),
    "model_ema": ({"model": flat(OTHER), "model_ema": flat(PLAIN)}, "model", "model_ema"),
    "only tensors averaged": ({"model": flat(OTHER), "ema": PLAIN}, "model", "ema"),
    "params_ema": ({"params": flat(OTHER), "params_ema": flat(PLAIN)}, "params", "ema"),
    "one state dict": (
        flat(OTHER, "online_model.")
        | flat(PLAIN, "ema_model.")
        | {"initted": np.ones(1, np.float32)},
        "online_model",
        "ema_model",
    ),
    "three": (
        {
            "model": flat(OTHER),
            "ema": flat(OTHER, "online_model.") | flat(PLAIN, "ema_model."),
            "opt": ADAM,
        },
        "ema/online_model",
        "ema/ema_model",
    ),
    "lightning": (
        {
            "state_dict": under("net.", flat(OTHER)),
            "callbacks": {"EMA": {"decay": 0.99, "shadow": under("net.", flat(PLAIN))}},
        },
        "state_dict",
        "ema",
    ),
    "before averaging": ({"non_ema": flat(OTHER), "ema": flat(PLAIN)}, "non_ema", "ema"),
}


def same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("name", ONE)
def test_one_copy_is_found_wherever_it_stands(name, tmp_path):
    state = read_state_dict(save_torch(ONE[name], tmp_path / "x.pt"))
    same(state.tensors, PLAIN)
    assert state.schedule is not None
    np.testing.assert_allclose(state.schedule.beta, cosine(5).beta, rtol=1e-6)


@pytest.mark.parametrize("name", SEVERAL)
def test_the_average_is_taken_unless_another_is_asked_for(name, tmp_path):
    saved, other, average = SEVERAL[name]
    path = save_torch(saved, tmp_path / "x.pt")
    same(read_state_dict(path).tensors, PLAIN)
    same(read_state_dict(path, average).tensors, PLAIN)
    same(read_state_dict(path, "ema").tensors, PLAIN)
    same(read_state_dict(path, other).tensors, OTHER)
    assert read_state_dict(path, other).schedule is not None
    with pytest.raises(ValueError, match=r"x\.pt holds . copies.*, and 'best' is not one"):
        read_state_dict(path, "best")


def test_copies_that_cannot_be_told_apart_are_listed(tmp_path):
    path = save_torch({"a": flat(PLAIN), "b": flat(OTHER)}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="holds 2 copies of the network: a, b; name one"):
        read_state_dict(path)
    same(read_state_dict(path, "b").tensors, OTHER)
    averages = {"ema_0.99": flat(PLAIN), "ema_0.999": flat(OTHER)}
    path = save_torch(averages, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"ema_0\.99, ema_0\.999, and 'ema' is not one"):
        read_state_dict(path, "ema")


def test_names_that_become_equal_are_refused(tmp_path):
    path = save_torch(PLAIN | under("module.", OTHER), tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x\.pt has two tensors .* of a wrapped network"):
        read_state_dict(path)


def test_schedules_that_differ_are_refused(tmp_path):
    saved = {"net": PLAIN, "a": BETAS, "b": {"betas": BETAS["betas"] / 2}}
    with pytest.raises(ValueError, match=r"x\.pt has 2 noise schedules"):
        read_state_dict(save_torch(saved, tmp_path / "x.pt"))
    long = {"net": PLAIN, "betas": np.full(200_000, 0.01, np.float32)}
    with pytest.raises(ValueError, match=r"x\.pt has 200,000 betas, more than"):
        read_state_dict(save_torch(long, tmp_path / "x.pt"))


def test_containers_that_contain_each_other_end(tmp_path):
    wide = {"x": 1}
    for _ in range(200):
        wide = {"a": wide, "b": wide}
    with pytest.raises(ValueError, match="holds 'a', 'b', and no network"):
        read_state_dict(save_shared(wide, tmp_path / "x.pt"))


def save_shared(value, path):
    import pickle
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(value, 2))
    return path


STRANGERS = {
    "a perceptron": (
        {"mlp.0.weight": PLAIN["time_mlp.1.weight"]},
        r"holds a network of another kind \(mlp\.0\.weight \(32, 8\)\); read are",
    ),
    "cold": (
        {"mask_t": np.ones((3, 2), np.float32)},
        "is of a cold diffusion, which masks instead of adding noise: it has no score",
    ),
    "a U-Net of many versions": (
        flat(PLAIN | {"init_conv.weight": np.ones((8, 3, 7), np.float32)}),
        "other things under the same names .*; give the network itself",
    ),
    "a U-Net without its heads": (
        {"input_blocks.0.0.weight": np.ones((8, 3, 3, 3), np.float32)},
        "a U-Net of guided_diffusion, .*; give the network itself",
    ),
    "a number": (3, "holds a int, no state dict"),
    "another U-Net": (
        {"time_mlp.1.weight": PLAIN["time_mlp.1.weight"]},
        "has a time embedding but no downs.0; read are",
    ),
    "no schedule": (PLAIN, "holds a temporal U-Net without its noise schedule"),
    "not a number": (
        flat(PLAIN | {"final_conv.1.bias": np.full(3, np.nan, np.float32)}),
        "final_conv.1.bias has numbers that are NaN or infinite",
    ),
    "too large for float32": (
        flat(PLAIN | {"final_conv.1.bias": np.full(3, 1e300)}),
        "final_conv.1.bias has numbers that are NaN or infinite",
    ),
    "an empty embedding": (
        flat(PLAIN | {"time_mlp.1.weight": np.zeros((4, 0), np.float32)}),
        r"time_mlp\.1\.weight has shape \(4, 0\), not 2 axes",
    ),
    "a vector": (
        flat(PLAIN | {"downs.0.0.blocks.0.block.0.weight": np.zeros(4, np.float32)}),
        r"downs\.0\.0\.blocks\.0\.block\.0\.weight has shape \(4,\), not 3 axes",
    ),
    "a wide bias": (
        flat(PLAIN | {"final_conv.1.bias": np.zeros(4, np.float32)}),
        r"the tensor of head/bias has shape \(4,\), which does not fit the others",
    ),
    "noise above 1": (PLAIN | {"betas": np.ones(3, np.float32)}, "beta must be"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_what_is_no_such_network_is_refused_for_what_it_is(name, tmp_path):
    saved, message = STRANGERS[name]
    path = save_torch(saved, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=rf"x\.pt:? .*{message}") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_a_model_with_a_copy_is_that_copy(tmp_path):
    saved = {"model": flat(OTHER), "ema": flat(PLAIN)}
    path = save_torch(saved, tmp_path / "x.pt")
    for copy, tensors in ((None, PLAIN), ("model", OTHER)):
        wanted = load_unet(tensors).params
        jax.tree.map(np.testing.assert_array_equal, load_model(path, copy).params, wanted)
