import gc
import logging
import os
import shutil

import jax
import numpy as np
import optax
import pytest

from diffreward.train import CheckpointMismatch, Members, Task, load_params, optimise
from tests.train import toy

# Orbax drops its own coroutines when a read fails, and Python notices at collection.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    return workdir, toy.run(workdir=workdir)


@pytest.fixture
def copy(tmp_path, finished):
    shutil.copytree(finished[0], tmp_path / "run")
    yield tmp_path / "run"
    gc.collect()


def array_files(folder):
    return [p for p in folder.rglob("d/*") if p.is_file()]


def truncate(folder):
    for file in array_files(folder):
        os.truncate(file, file.stat().st_size // 2)


def swap(folder):
    """Puts another step's arrays in place: storage finds nothing wrong with them."""
    for item in ("params", "ema_params"):
        shutil.rmtree(folder / item)
        shutil.copytree(folder.parent / "40" / item, folder / item)


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def test_keeps_the_last_two(finished):
    kept = [p.name for p in (finished[0] / "checkpoint").iterdir() if p.is_dir()]
    assert sorted(kept) == ["40", "60"]


def test_finished_run_returns_its_state(finished):
    toy.assert_same_bits(toy.run(workdir=finished[0]), finished[1])


@pytest.mark.parametrize("damage", [truncate, swap, empty])
def test_damaged_checkpoint_falls_back(copy, finished, damage, caplog):
    damage(copy / "checkpoint" / "60")
    with caplog.at_level(logging.WARNING):
        state = toy.run(workdir=copy)
    toy.assert_same_bits(state, finished[1])
    if damage is not empty:  # an empty folder is not even listed as a checkpoint
        # Other libraries' records may name the folder, which has the test's name.
        ours = [r for r in caplog.records if r.name == "absl"]
        lines = [r.getMessage() for r in ours if "damaged" in r.getMessage()]
        assert len(lines) == 1
        assert "60" in lines[0]
        assert "\n" not in lines[0]


def test_all_checkpoints_damaged(copy):
    for step in ("40", "60"):
        truncate(copy / "checkpoint" / step)
    with pytest.raises(OSError, match="no checkpoint in .* can be read; remove"):
        toy.run(workdir=copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "written with seed 0, this run has seed 1; use another workdir"),
        (
            {"members": Members(2)},
            "written with population None, this run has population 2",
        ),
    ],
)
def test_checkpoint_of_another_run(copy, change, message):
    with pytest.raises(CheckpointMismatch, match=message):
        toy.run(workdir=copy, **change)


def test_checkpoint_of_another_shape(copy):
    def init(key):
        return {**toy.init(key), "out": np.zeros(9, np.float32)}

    settings = {**toy.run.keywords, "workdir": copy}
    with pytest.raises(CheckpointMismatch) as error:
        optimise(Task(init, toy.loss, toy.draw), optax.adam(1e-2), **settings)
    message = str(error.value)
    assert "params/out of float32 (8,)" in message
    assert "needs params/out of float32 (9,)" in message
    assert "\n" not in message


def test_checkpoint_of_another_optimiser(copy):
    settings = {**toy.run.keywords, "workdir": copy}
    with pytest.raises(CheckpointMismatch, match="opt_state/.*this run needs no opt"):
        optimise(toy.TASK, optax.sgd(1e-2), **settings)


def test_load_params(finished):
    workdir, state = finished
    toy.assert_same_bits(load_params(workdir), state.ema_params)
    toy.assert_same_bits(load_params(workdir, ema=False), state.params)
    assert jax.tree.structure(load_params(workdir)) == jax.tree.structure(state.params)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "60 cannot be read"),
        (swap, "ema_params/.* in .*60 is not what was saved"),
    ],
)
def test_load_params_of_a_damaged_run(copy, damage, message):
    damage(copy / "checkpoint" / "60")
    with pytest.raises(OSError, match=message) as error:
        load_params(copy)
    assert "\n" not in str(error.value)


def test_load_params_without_a_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint in .*train this stage"):
        load_params(tmp_path)
