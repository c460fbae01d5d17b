"""What a run will cost: a line per stage, before the first one starts."""

import time
from collections.abc import Iterable

import jax
import jax.numpy as jnp

from configs.common import ConfigDict
from diffreward import data as d
from diffreward import train
from diffreward.learn import Denoiser, RewardModel, distillation_task, reward_task
from diffreward.networks import EnergyDenoiser, ResidualEnergy
from diffreward.text import say
from diffreward.types import Params
from experiments.build import build_reward, energy_net, optimiser
from experiments.stages import reward_members, reward_sets

MIB = 2**20
TYPICAL_SHARE = 0.4
"""Of the matmul peak that training of small networks reaches, for estimates."""


def blank_params(model: Denoiser, population: int | None) -> Params:
    """Shapes of a model's parameters, stacked for a population."""
    x, t = jnp.zeros(model.shape), jnp.zeros((), jnp.int32)
    one = jax.eval_shape(model.network.init, jax.random.key(0), x, t)
    lead = () if population is None else (population,)
    return jax.tree.map(lambda p: jax.ShapeDtypeStruct((*lead, *p.shape), p.dtype), one)


def matmul_rate(size: int = 1024) -> float:
    """Float32 matrix-product rate of the devices in FLOP/s, from a few products."""
    x = jnp.ones((size, size))
    product = jax.jit(lambda x: x @ x)
    product(x).block_until_ready()
    began = time.perf_counter()
    for _ in range(4):
        product(x).block_until_ready()
    return 4 * 2 * size**3 / (time.perf_counter() - began)


def print_plan(rows: list[tuple[str, ConfigDict, int, dict]], data_bytes: int) -> None:
    """One line per training stage: steps, parameters, rough time and memory."""
    rate = TYPICAL_SHARE * matmul_rate()
    total, peak = 0.0, 0
    say(f"{'stage':16}{'steps':>9}{'members':>9}{'parameters':>12}{'minutes':>9}{'MiB':>7}")
    for name, section, members, cost in rows:
        minutes = section.steps * cost["flops_per_step"] / rate / 60
        # Parameters, average, two moments, and as much again for gradients and copies.
        memory = 2 * cost["state_bytes"] + data_bytes + 4 * cost["batch_bytes"]
        say(
            f"{name:16}{section.steps:>9,}{members:>9}{cost['parameters']:>12,}"
            f"{minutes:>9.1f}{memory / MIB:>7.0f}"
        )
        total, peak = total + minutes, max(peak, memory)
    say(
        f"about {total:.0f} minutes of training on {jax.device_count()} "
        f"{jax.devices()[0].device_kind} device(s), and {peak / MIB + 900:.0f} MiB with "
        "the program itself; finished stages are skipped",
    )


def start_rows(
    section: ConfigDict, model: Denoiser, rewards: Iterable[RewardModel], one: d.Windows
) -> list[tuple[str, ConfigDict, int, dict]]:
    """The row of the energy that the base is distilled into, if any reward starts there."""
    residual = any(isinstance(r.network, ResidualEnergy) for r in rewards)
    if not residual or isinstance(model.network, EnergyDenoiser):
        return []
    energy = EnergyDenoiser(energy_net(model))
    each = train.estimate(
        distillation_task(model, energy, section.batch_size),
        optimiser(section),
        data=one,
        frozen=blank_params(model, None),
    )
    return [("start", section, 1, each)]


def reward_cost(
    section: ConfigDict, model: Denoiser, one: d.Windows, population: int
) -> dict[str, int]:
    """What a step of a population of rewards costs; ``one`` is any set of windows."""
    reward = build_reward(section, model)
    stacked = d.stack_windows([one] * population)
    names = reward_sets(section.source)
    return train.estimate(
        reward_task(model, reward, section.source, section.batch_size),
        optimiser(section),
        data={n: one if n == "base" else stacked for n in names},
        frozen={
            "base": blank_params(model, None),
            "expert": blank_params(model.of_expert, population),
        },
        members=reward_members(section.source, population),
    )
