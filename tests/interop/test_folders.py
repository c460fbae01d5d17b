"""Hugging Face folders, without PyTorch."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.diffusion import linear
from diffreward.interop import (
    load_model,
    load_scheduler,
    load_unet1d,
    save_scheduler,
    save_unet1d,
)
from diffreward.interop.scheduler import TRAINED_AS_DDPM
from diffreward.networks import TemporalUnet
from tests.fuzz.damage import damaged, outcome
from tests.networks.reference import random_params


def test_a_network_survives_the_way_there_and_back(tmp_path):
    network = TemporalUnet(16, (1, 2, 2), out_dim=3)
    params = random_params(network, jnp.zeros((8, 5)), jnp.int32(0))
    save_unet1d(tmp_path / "m", network, params, 5)
    again = load_unet1d(tmp_path / "m")
    assert again.network == network
    jax.tree.map(np.testing.assert_array_equal, again.params, params)


OPTIONS = {
    "act_fn": "silu",
    "time_embedding_type": "fourier",
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "extra_in_channels": 2,
    "mid_block_type": "UNetMidBlock1D",
    "down_block_types": ["DownBlock1D", "DownResnetBlock1D"],
    "layers_per_block": 2,
    "dropout": 0.1,
    "_class_name": "UNet2DModel",
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_we_do_not_have_are_refused_by_name(name, tmp_path):
    network = TemporalUnet(16, (1, 2))
    params = random_params(network, jnp.zeros((8, 5)), jnp.int32(0))
    save_unet1d(tmp_path / "m", network, params, 5)
    path = tmp_path / "m/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: OPTIONS[name]}))
    with pytest.raises(ValueError, match=rf"config\.json: (unknown option )?{name} = "):
        load_unet1d(tmp_path / "m")


def test_schedulers_we_write_are_read_by_both(tmp_path):
    save_scheduler(tmp_path, linear(30), "x_0")
    schedule, prediction = load_scheduler(tmp_path)
    assert prediction == "x_0"
    np.testing.assert_allclose(schedule.alpha_bar, linear(30).alpha_bar, rtol=1e-5)
    with pytest.raises(ValueError, match="a scheduler cannot say 'score'"):
        save_scheduler(tmp_path, linear(30), "score")
    path = tmp_path / "scheduler_config.json"
    config = json.loads(path.read_text()) | {"trained_betas": None}
    path.write_text(json.dumps(config | {"beta_schedule": "sigmoid"}))
    with pytest.raises(ValueError, match="beta_schedule = 'sigmoid' is not supported"):
        load_scheduler(tmp_path)


def test_a_folder_without_a_schedule_is_refused(tmp_path):
    network = TemporalUnet(16, (1, 2))
    params = random_params(network, jnp.zeros((8, 5)), jnp.int32(0))
    save_unet1d(tmp_path / "m", network, params, 5)
    with pytest.raises(ValueError, match="no scheduler/scheduler_config.json"):
        load_model(tmp_path / "m")


DDPM = {
    "_class_name": "DDPMScheduler",
    "_diffusers_version": "0.42.1",
    "num_train_timesteps": 10,
    "beta_schedule": "linear",
    "beta_start": 0.01,
    "beta_end": 0.2,
    "prediction_type": "epsilon",
    "clip_sample": True,
    "variance_type": "fixed_small",
    "timestep_spacing": "leading",
}
GONE = object()


def scheduler(folder, **changes):
    config = {k: v for k, v in (DDPM | changes).items() if v is not GONE}
    (folder / "scheduler_config.json").write_text(json.dumps(config))
    return load_scheduler(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"_class_name": "DDIMScheduler", "set_alpha_to_one": False, "steps_offset": 1},
        {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "prediction_type": GONE},
        {"_class_name": "EulerAncestralDiscreteScheduler", "timestep_type": "discrete"},
        {"_class_name": "UniPCMultistepScheduler", "use_karras_sigmas": True},
        {"_class_name": "DPMSolverMultistepScheduler", "solver_order": 3},
        {"use_flow_sigmas": False, "flow_shift": 1.0, "rescale_betas_zero_snr": False},
        {"_class_name": GONE},
    ],
)
def test_samplers_of_one_training_have_one_schedule(changes, tmp_path):
    schedule, prediction = scheduler(tmp_path, **changes)
    beta = np.linspace(0.01, 0.2, 10)
    np.testing.assert_allclose(schedule.alpha_bar, np.cumprod(1 - beta), rtol=1e-5)
    assert prediction == "eps"


REFUSED = {
    "flow": ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "rectified_flow"),
    "flow of Heun": ({"_class_name": "FlowMatchHeunDiscreteScheduler"}, "flow matching"),
    "EDM": ({"_class_name": "EDMDPMSolverMultistepScheduler"}, "variance_exploding"),
    "EDM Euler": ({"_class_name": "EDMEulerScheduler"}, "EDM's noise"),
    "VE": ({"_class_name": "ScoreSdeVeScheduler"}, "an SDE"),
    "Karras": ({"_class_name": "KarrasVeScheduler"}, "exploding"),
    "LCM": ({"_class_name": "LCMScheduler"}, "a consistency model"),
    "TCD": ({"_class_name": "TCDScheduler"}, "a consistency model"),
    "CM": ({"_class_name": "CMStochasticIterativeScheduler"}, "a consistency model"),
    "unheard of": ({"_class_name": "NewScheduler"}, "'NewScheduler' is not supported"),
    "a list": ({"_class_name": ["DDPMScheduler"]}, "is not supported"),
    "no class": ({"_class_name": GONE, "prediction_type": GONE}, "lacks _class_name, and"),
    "no levels": ({"num_train_timesteps": GONE}, "num_train_timesteps = None"),
    "no schedule": ({"beta_schedule": GONE}, "beta_schedule = None"),
    "no end": ({"beta_end": GONE}, "lacks beta_end"),
    "sigmas of a flow": ({"use_flow_sigmas": True}, "use_flow_sigmas = True"),
    "zero signal": ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr = True"),
    "learned variance": ({"variance_type": "learned_range"}, "variance_type = 'learned"),
    "continuous time": ({"timestep_type": "continuous"}, "timestep_type = 'continuous'"),
    "a new option": ({"shift": 3.0}, "shift = 3.0 is not supported"),
    "a flow's prediction": ({"prediction_type": "flow_prediction"}, "'flow_prediction'"),
    "a list for a word": ({"prediction_type": []}, r"prediction_type = \[\] is not"),
    "a flag that is none": ({"predict_epsilon": "no"}, "predict_epsilon = 'no' is neither"),
    "many levels": ({"num_train_timesteps": 25_000_000}, "is no number of levels"),
    "more levels": ({"num_train_timesteps": 10**13}, "is no number of levels"),
    "no level": ({"num_train_timesteps": 0}, "is no number of levels"),
    "half a level": ({"num_train_timesteps": 2.5}, "is no number of levels"),
    "true levels": ({"num_train_timesteps": True}, "is no number of levels"),
    "text": ({"beta_start": "x"}, "beta_start = 'x' is no number"),
    "negative": ({"beta_start": -1, "beta_schedule": "scaled_linear"}, "beta_start = -1"),
    "not a number": ({"beta_end": float("nan")}, "beta_end = nan is no number"),
    "above one": ({"beta_end": 2.0}, "scheduler_config.json: beta must be"),
    "betas an object": ({"trained_betas": {"a": 1}}, "trained_betas are no 10 numbers"),
    "nine betas": ({"trained_betas": [0.1] * 9}, "trained_betas are no 10 numbers"),
    "betas of text": ({"trained_betas": ["0.1"] * 10}, "trained_betas are no 10"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_trainings_and_damage_are_refused_by_name(name, tmp_path):
    changes, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as caught:
        scheduler(tmp_path, **changes)
    assert "scheduler_config.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_schedulers_are_diffusers_own(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    for name in sorted(TRAINED_AS_DDPM):
        kind = getattr(diffusers, name, None)
        if kind is None or (name == "DPMSolverSDEScheduler"):  # needs torchsde
            continue
        made = kind(num_train_timesteps=20, beta_start=0.01, beta_end=0.2)
        made.save_pretrained(tmp_path)
        schedule, _ = load_scheduler(tmp_path)
        np.testing.assert_allclose(schedule.alpha_bar, made.alphas_cumprod, rtol=1e-4)


SIZES = {
    "a number": ({"block_out_channels": 5}, "block_out_channels = 5 is no list"),
    "none": ({"block_out_channels": []}, r"block_out_channels = \[\] is no list"),
    "zeros": ({"block_out_channels": [0, 0]}, "block_out_channels = 0 is not"),
    "halves": ({"block_out_channels": [0.5, 1]}, "block_out_channels = 0.5 is not"),
    "negative": ({"in_channels": -5}, "in_channels = -5 is not supported"),
    "text": ({"in_channels": "5"}, "in_channels = '5' is not supported"),
    "huge": ({"out_channels": 10**12}, "out_channels = 1000000000000 is not"),
    "true": ({"in_channels": True}, "in_channels = True is not supported"),
    "a list": ({"act_fn": []}, r"act_fn = \[\] is not supported"),
    "one for true": ({"use_timestep_embedding": 1}, "use_timestep_embedding = 1 is"),
    "wider": ({"block_out_channels": [32, 64]}, "the tensor of .* which does not fit"),
    "deeper": (
        {
            "block_out_channels": [16] * 14,
            "down_block_types": ["DownResnetBlock1D"] * 14,
            "up_block_types": ["UpResnetBlock1D"] * 13,
        },
        "lacks the tensor",
    ),
    "class": ({"_class_name": GONE}, "lacks _class_name"),
    "activation": ({"act_fn": GONE}, "lacks act_fn"),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_checked_before_anything_is_made(name, tmp_path):
    network = TemporalUnet(16, (1, 2))
    params = random_params(network, jnp.zeros((8, 5)), jnp.int32(0))
    save_unet1d(tmp_path / "m", network, params, 5)
    changes, message = SIZES[name]
    path = tmp_path / "m/config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not GONE}))
    with pytest.raises(ValueError, match=message) as caught:
        load_unet1d(tmp_path / "m")
    assert "\n" not in str(caught.value)


def test_keys_that_change_nothing_are_let_through(tmp_path):
    network = TemporalUnet(16, (1, 2))
    params = random_params(network, jnp.zeros((8, 5)), jnp.int32(0))
    save_unet1d(tmp_path / "m", network, params, 5)
    path = tmp_path / "m/config.json"
    more = {"decay": 0.99, "inv_gamma": 1.0, "optimization_step": 9, "use_ema_warmup": True}
    path.write_text(json.dumps(json.loads(path.read_text()) | more))
    jax.tree.map(np.testing.assert_array_equal, load_unet1d(tmp_path / "m").params, params)


def test_damaged_folders_are_refused_or_read(tmp_path):
    network = TemporalUnet(8, (1, 2))
    params = random_params(network, jnp.zeros((8, 5)), jnp.int32(0))
    save_unet1d(tmp_path / "m/unet", network, params, 5)
    save_scheduler(tmp_path / "m/scheduler", linear(5), "eps")
    rng = np.random.default_rng(3)
    for name in ("unet/config.json", "scheduler/scheduler_config.json"):
        path, refused = tmp_path / "m" / name, 0
        whole = path.read_bytes()
        for _, data in damaged(whole, rng, 40):
            path.write_bytes(data)
            refused += outcome(lambda: load_model(tmp_path / "m"), path) is not None
        path.write_bytes(whole)
        assert refused > 15
    load_model(tmp_path / "m")
