"""Checkpoints on the command line: which copy, and the digest of what was read."""

import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.cli import main
from diffreward.cli.models import open_checkpoint
from diffreward.diffusion import cosine
from diffreward.interop import save_scheduler, save_unet1d
from diffreward.networks import TemporalUnet
from tests.interop.test_copies import OTHER, PLAIN, flat
from tests.interop.torch_file import save_torch
from tests.networks.reference import random_params

SHAPE = (4, 3)


def folder(path):
    network = TemporalUnet(8, (1, 2))
    params = random_params(network, jnp.zeros(SHAPE), jnp.int32(0))
    save_unet1d(path / "unet", network, params, 3)
    save_scheduler(path / "scheduler", cosine(5), "x_0")
    return path


def test_the_digest_is_of_what_was_read_wherever_it_lies(tmp_path):
    first = open_checkpoint(folder(tmp_path / "a"), SHAPE)
    assert set(first.read) == {
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
    }
    shutil.move(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b/README.md").write_text("not read")
    assert open_checkpoint(tmp_path / "b", SHAPE).sha256 == first.sha256
    for name in first.read:
        copied = shutil.copytree(tmp_path / "b", tmp_path / Path(name).name)
        with (copied / name).open("ab") as file:
            file.write(b" ")
        if name.endswith(".json"):  # blanks after JSON are no damage
            assert open_checkpoint(copied, SHAPE).sha256 != first.sha256
        else:
            with pytest.raises(ValueError, match="no valid safetensors file"):
                open_checkpoint(copied, SHAPE)


def test_a_file_that_is_replaced_afterwards_keeps_its_digest(tmp_path):
    path = save_torch(flat(PLAIN), tmp_path / "x.pt")
    checkpoint = open_checkpoint(path, SHAPE)
    save_torch(flat(OTHER), path)
    assert checkpoint.provenance()["sha256"] == checkpoint.sha256
    assert open_checkpoint(path, SHAPE).sha256 != checkpoint.sha256


def test_the_copy_is_an_option(tmp_path, capsys):
    saved = {"model": flat(OTHER), "ema": flat(PLAIN), "other": flat(OTHER)}
    path = save_torch(saved, tmp_path / "x.pt")
    data = tmp_path / "x.npy"
    np.save(data, np.random.default_rng(0).normal(size=(40, *SHAPE)).astype(np.float32))
    told = {}
    for copy in (None, "ema", "model", "best"):
        option = [] if copy is None else ["--model-copy", copy]
        code = main(["detect", "--model", str(path), "--data", str(data), *option])
        told[copy] = capsys.readouterr()
        assert code == (1 if copy == "best" else 0)
    assert told[None].out == told["ema"].out != told["model"].out
    assert "copies of the network: ema, model, other, and 'best'" in told["best"].err
    assert open_checkpoint(path, SHAPE, "other").provenance()["copy"] == "other"
