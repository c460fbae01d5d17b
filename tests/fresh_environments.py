"""Runs the README's commands, each in a fresh environment with only what it names.

    python tests/fresh_environments.py [wheel] [images] [rl] [bench] [minari] [wandb] [d4rl]

Needs the package index; some minutes and up to 2 GB of disk per name, one after another.
"""

import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

MAZE = (
    *("-m", "experiments.maze2d", "--config=configs/maze2d.py:umaze,smoke"),
    "--workdir=WORK/umaze",
)
OWN_DATASET = """
import gymnasium, minari
from diffreward.data import load_minari
env = minari.DataCollector(gymnasium.make("Hopper-v5"))
for seed in range(2):
    env.reset(seed=seed)
    while not any(env.step(env.action_space.sample())[2:4]):
        pass
env.create_dataset("own/hopper-v0")
print(load_minari("own/hopper-v0").observations.shape)
"""
TABLE = """
from diffreward.data.registry import d4rl_registry
print(d4rl_registry()["maze2d-umaze-v1"])
"""
TWO_CHECKPOINTS = """
import jax, numpy as np
from diffreward.diffusion import cosine
from diffreward.interop import save_scheduler, save_unet1d
from diffreward.networks import TemporalUnet
net, x = TemporalUnet(16, (1, 2)), np.zeros((8, 5), np.float32)
for name, seed in (("A", 0), ("B", 1)):
    params = net.init(jax.random.key(seed), x, np.int32(0))
    save_unet1d(f"{name}/unet", net, params, 5)
    save_scheduler(f"{name}/scheduler", cosine(20), "x_0")
for name in ("samples.npy", "more.npy"):
    np.save(name, np.random.default_rng(0).normal(0, 1, (60, 8, 5)).astype(np.float32))
"""
SMALL = ("--steps", "20", "--width", "16", "--depth", "1", "--batch-size", "8")

# In the environment's folder of programs; python if the first word is an option.
COMMANDS: dict[str, Sequence[Sequence[str]]] = {
    "wheel": (
        ("diffreward", "--help"),
        ("-c", TWO_CHECKPOINTS),
        ("diffreward", "extract", "--base", "A", "--expert", "B", "--data", "samples.npy")
        + ("--out", "card", *SMALL),
        ("diffreward", "score", "card", "more.npy"),
        ("diffreward", "report", "card"),
        # The shipped policies are part of the wheel.
        ("-c", "from diffreward.data.snapshots import read_index; read_index('hopper')"),
    ),
    "images": (
        ("-m", "experiments.images", "--config=configs/images.py:digits,smoke")
        + ("--workdir=WORK/digits",),
        (
            "-c",
            "from diffreward.interop.tokenizer import load_tokenizer; import tokenizers",
        ),
    ),
    "rl": (
        MAZE,
        ("-m", "experiments.rl", "--config=configs/rl.py:umaze,smoke")
        + ("--config.run=WORK/umaze", "--workdir=WORK/rl"),
    ),
    "bench": (("-m", "benchmarks.train_step", "hopper", "--repeats", "2"),),
    "minari": (("-c", OWN_DATASET),),
    "wandb": ((*MAZE, "--wandb=trial"),),
    "d4rl": (("-c", TABLE),),
}


def run(name: str, work: Path) -> None:
    """Makes the environment of an extra (or of the plain wheel) and runs its commands."""
    venv.create(work / "env", with_pip=True)
    programs = work / "env" / "bin"
    wheel = name == "wheel"
    what = (".",) if wheel else ("-e", f".[{name}]")
    install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what)
    settings = {"WANDB_MODE": "offline", "MINARI_DATASETS_PATH": str(work / "minari")}
    for parts in (install, *COMMANDS[name]):
        program, *rest = parts if parts[0] == "diffreward" else ("python", *parts)
        subprocess.run(
            [programs / program, *(part.replace("WORK", str(work)) for part in rest)],
            # The wheel is used from a folder that knows nothing of the project.
            cwd=work if wheel and parts is not install else ROOT,
            env={**os.environ, **settings},
            stdout=subprocess.DEVNULL,
            check=True,
        )


def main(names: Sequence[str]) -> int:
    """Runs all or the named ones; returns the number of failures."""
    unknown = sorted(set(names) - set(COMMANDS))
    if unknown:
        print(f"error: unknown {unknown[0]!r}; known are {', '.join(COMMANDS)}")  # noqa: T201
        return 1
    failed = 0
    for name in names or COMMANDS:
        began = time.monotonic()
        # A space in its path, as many a home folder has.
        with tempfile.TemporaryDirectory(prefix=f"fresh {name} ") as work:
            try:
                run(name, Path(work))
                verdict = "passed"
            except subprocess.CalledProcessError as error:
                verdict, failed = f"failed: {error}", failed + 1
        print(f"{name:8} {time.monotonic() - began:5.0f} s  {verdict}", flush=True)  # noqa: T201
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
