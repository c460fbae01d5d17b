"""How fast are steered rollouts, and is it the planner or the physics that takes the time?

    python -m benchmarks.rollout [halfcheetah|hopper|walker2d] [--episodes 64]
        [--steps 1000] [--preset cpu] [--unsteered] [--json FILE]

Networks of the locomotion config with random weights. Compilation is not counted.
Episodes of hopper and walker2d end when the robot falls, so that their batch shrinks;
halfcheetah never falls.
"""

import argparse
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs import locomotion as configs
from diffreward import data as d
from diffreward.steer import guide, make_controller, roll_out
from experiments.build import build_denoiser, build_reward


def make_act(task: str, preset: str, steered: bool) -> Any:
    """Actions of a base with random weights, steered by a random reward or not."""
    config, simulator = configs.get_config(f"{task},{preset}"), d.LOCOMOTION[task]
    model = build_denoiser(config.model, simulator.act_dim, simulator.obs_dim)
    reward = build_reward(config.rewards, model)
    init = lambda network, seed: network.init(
        jax.random.key(seed), jnp.zeros(model.shape), jnp.int32(0)
    )
    params = init(model.network, 0), init(reward.network, 1)
    normaliser = d.Normaliser(np.zeros(model.shape[1]), np.ones(model.shape[1]))

    @jax.jit
    def act(params: Any, keys: Any, step: Any, observations: Any) -> Any:
        eps_fn = model.eps_fn(params[0])
        if steered:
            rho = reward.reward_fn(params[1])
            eps_fn = guide(eps_fn, rho, model.schedule, 1.0, pinned=model.pinned)
        controller = make_controller(
            eps_fn, model.schedule, normaliser, model.pinned, simulator.act_dim
        )
        return controller(keys, step, observations)

    return partial(act, params)


def measure(task: str, episodes: int, steps: int, preset: str, steered: bool) -> dict:
    """Steps per second, and seconds of planner and physics."""
    act = make_act(task, preset, steered)
    make_env, seeds = partial(d.make_locomotion, task), range(episodes)
    size = 1 << (episodes - 1).bit_length()
    while size:  # every batch size that can occur is compiled first
        roll_out(make_env, act, range(size), max_steps=1)
        size //= 2
    found = roll_out(make_env, act, list(seeds), max_steps=steps)
    taken = int(found.lengths.sum())
    total = found.planner_seconds + found.physics_seconds
    return {
        "task": task,
        "episodes": episodes,
        "steps": taken,
        "steps_per_second": taken / total,
        "planner_seconds": found.planner_seconds,
        "physics_seconds": found.physics_seconds,
        "steered": steered,
        "preset": preset,
        "device": jax.devices()[0].device_kind,
        "cpus": os.cpu_count(),
    }


def main() -> None:
    """Parses the command line, measures, prints one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", nargs="?", default="halfcheetah", choices=d.LOCOMOTION)
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--preset", default="cpu", choices=configs.PRESETS)
    parser.add_argument("--unsteered", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.episodes < 1 or options.steps < 1:
        parser.error("--episodes and --steps must be positive")
    found = measure(
        options.task, options.episodes, options.steps, options.preset, not options.unsteered
    )
    print(
        f"{found['task']}, {found['episodes']} episodes, {found['steps']:,} steps: "
        f"{found['steps_per_second']:.0f} steps/s "
        f"(planner {found['planner_seconds']:.1f} s, physics "
        f"{found['physics_seconds']:.1f} s) on {found['device']}, {found['cpus']} cores"
    )
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
