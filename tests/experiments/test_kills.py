"""A stage that is killed at any moment ends, run again, with the same bits."""

import subprocess
import sys
import time

import numpy as np
import pytest

from diffreward.data import read_arrays

STAGE = """
import sys
from pathlib import Path

import jax, jax.numpy as jnp, numpy as np
from diffreward import data, report
from diffreward.train import Loop, Task, make_optimiser, optimise

folder = Path(sys.argv[1]) / "stage"
x = jnp.asarray(np.random.default_rng(0).normal(size=(64, 20)), jnp.float32)
task = Task(
    init=lambda key: {"params": {"w": jax.random.normal(key, (20, 20))}},
    loss=lambda p, frozen, key, b: (jnp.mean((b @ p["params"]["w"]) ** 2), {}),
    draw=lambda d, key: d[jax.random.randint(key, (8,), 0, 64)],
)
done = report.open_stage(folder, {"steps": 400})
print("begun", flush=True)
state = optimise(
    task, make_optimiser(1e-2, steps=400, schedule="cosine", clip_norm=1.0), data=x,
    steps=400, seed=0, workdir=folder, name="stage",
    loop=Loop(steps_per_dispatch=10, log_every=10, checkpoint_every=20, progress=False),
)
if not done:
    data.write_arrays(folder / "arrays.npz", {"w": np.asarray(state.params["params"]["w"])})
    report.close_stage(folder, {"steps": 400})
print("finished", flush=True)
"""


def start(folder):
    command = [sys.executable, "-c", STAGE, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def run(folder):
    """Runs the stage to its end; returns the seconds it took after its beginning."""
    with start(folder) as child:
        assert child.stdout.readline() == "begun\n"
        began = time.monotonic()
        assert child.stdout.readline() == "finished\n"
        return time.monotonic() - began


NAMES = ("arrays.npz", "config.json", "report.json")


def bits(folder):
    return [(folder / "stage" / name).read_bytes() for name in NAMES]


def check(tmp_path, kills):
    """Kills anywhere, while whatever the runs before left behind is still there.

    A stage that was finished is compared and begun anew, so that no kill falls on a
    program that has nothing left to do.
    """
    seconds = run(tmp_path / "whole")
    whole, rng = bits(tmp_path / "whole"), np.random.default_rng(0)
    finished = 0
    for number in range(kills):
        folder = tmp_path / f"killed{finished}"
        with start(folder) as child:
            child.stdout.readline()
            time.sleep(rng.uniform(0, seconds))
            child.kill()
        if number == kills - 1:
            run(folder)
        if (folder / "stage" / "report.json").exists():
            assert bits(folder) == whole
            finished += 1
    assert finished > 0
    assert read_arrays(folder / "stage" / "arrays.npz")["w"].shape == (20, 20)


def test_a_stage_survives_kills(tmp_path):
    check(tmp_path, kills=2)


@pytest.mark.slow
def test_a_stage_survives_fifty_kills(tmp_path):
    check(tmp_path, kills=50)
