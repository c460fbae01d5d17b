"""A card whose saving is killed at any moment is the one before or the one after."""

import subprocess
import sys
import time

import numpy as np
import pytest

SAVE = """
import sys
import jax, jax.numpy as jnp
from diffreward import card
from diffreward.diffusion import cosine
from diffreward.networks import AsTrajectory, InnerProductReward, TrajectoryMLP
from diffreward.reward import network_reward

net = AsTrajectory(InnerProductReward(TrajectoryMLP(16, 1)))
init = lambda i: net.init(jax.random.key(i), jnp.zeros((4, 3)), jnp.int32(0))
rewards = [network_reward(net, init(i), cosine(5), "x") for i in range(2)]
save = lambda i: card.save(rewards[i % 2], sys.argv[1], (4, 3), replace=True)
save(0)
print("begun", flush=True)
for i in range(1, int(sys.argv[2]) + 1):
    save(i)
print("finished", flush=True)
"""


def start(folder, times):
    command = [sys.executable, "-c", SAVE, str(folder), str(times)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def bits(folder):
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def saved(folder, times):
    with start(folder, times) as child:
        assert child.stdout.read() == "begun\nfinished\n"
    return bits(folder)


def check(tmp_path, kills):
    both = [saved(tmp_path / "even", 0), saved(tmp_path / "odd", 1)]
    assert both[0] != both[1]
    rng, folder = np.random.default_rng(0), tmp_path / "killed" / "card"
    folder.parent.mkdir()
    for _ in range(kills):
        with start(folder, 10_000) as child:
            child.stdout.readline()
            time.sleep(rng.uniform(0, 1))
            child.kill()
        assert bits(folder) in both
    assert saved(folder, 1) == both[1]
    assert [p.name for p in folder.parent.iterdir()] == ["card"]


def test_a_card_survives_kills(tmp_path):
    check(tmp_path, kills=1)


@pytest.mark.slow
def test_a_card_survives_fifty_kills(tmp_path):
    check(tmp_path, kills=50)
