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
from diffreward.networks import TemporalUnet
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
    path.write_text(json.dumps({"beta_schedule": "sigmoid"}))
    with pytest.raises(ValueError, match="beta_schedule = 'sigmoid' is not supported"):
        load_scheduler(tmp_path)


def test_a_folder_without_a_schedule_is_refused(tmp_path):
    network = TemporalUnet(16, (1, 2))
    params = random_params(network, jnp.zeros((8, 5)), jnp.int32(0))
    save_unet1d(tmp_path / "m", network, params, 5)
    with pytest.raises(ValueError, match="no scheduler/scheduler_config.json"):
        load_model(tmp_path / "m")
