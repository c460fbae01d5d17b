"""Command lines and training stages, shared by all experiments."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

from configs.common import ConfigDict
from diffreward import data as d
from diffreward import report, train
from diffreward.cli.guard import guarded, start_jax
from diffreward.files import claim, user_path
from diffreward.text import complain, say
from diffreward.types import Params
from experiments import tasks, validation
from experiments.samples import crossed_samples


def run(
    main: Callable[[ConfigDict, Path], Any], config: str, workdir: str, doc: str | None
) -> None:
    """Parses ``--config`` and ``--workdir`` and runs an experiment.

    Errors a user can act on end with one line on stderr and exit status 1.
    """
    flag = config_flags.DEFINE_config_file("config", config, "What to run.")
    folder = flags.DEFINE_string("workdir", workdir, "Where every stage is written.")
    wandb = flags.DEFINE_string("wandb", None, "Mirror metrics to this wandb project.")
    sys.modules["__main__"].__doc__ = doc

    def begin() -> None:
        start_jax()
        if not folder.value:
            raise ValueError("--workdir is empty; name a folder")
        workdir = user_path(folder.value)
        with claim(workdir):
            try:
                main(flag.value, workdir)
            except KeyboardInterrupt:
                again = "the same command goes on where it stopped"
                raise KeyboardInterrupt(again) from None

    def guard(_: list[str]) -> None:
        global _wandb
        logging.set_verbosity(logging.WARNING)  # orbax tells every step it takes
        _wandb = {"project": wandb.value} if wandb.value else None
        sys.exit(guarded(begin))

    for name in ("config", "workdir", "wandb"):  # what --help lists
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
    app.run(guard, flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
    """Parses flags; what is wrong with them is said in one line."""
    try:
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, ValueError, OSError) as error:
        # get_config's own errors arrive as the text of a traceback.
        lines = [line.strip() for line in str(error).splitlines()]
        causes = [line for line in lines if "Error:" in line.split(" ")[0]]
        message = causes[-1].split(": ", 1)[-1] if causes else _words(error)
        known = "unknown config key " if isinstance(error, AttributeError) else ""
        complain(f"{known}{message}")
        sys.exit(1)


def _words(error: Exception) -> str:
    return str(error).replace("\\n", " ").replace("\\'", "'")


_wandb: dict[str, Any] | None = None


MIB = 2**20
TYPICAL_SHARE = 0.4
"""Of the matmul peak that training of small networks reaches, for estimates."""


def blank_params(model: tasks.Model, population: int | None) -> Params:
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


def reward_cost(
    section: ConfigDict, model: tasks.Model, one: d.Windows, population: int
) -> dict[str, int]:
    """What a step of a population of rewards costs; ``one`` is any set of windows."""
    reward = tasks.build_reward(section, model)
    stacked = d.stack_windows([one] * population)
    names = reward_sets(section.source)
    return train.estimate(
        tasks.reward_task(model, reward, section.source, section.batch_size),
        tasks.optimiser(section),
        data={n: one if n == "base" else stacked for n in names},
        frozen={
            "base": blank_params(model, None),
            "expert": blank_params(model, population),
        },
        members=reward_members(section.source, population),
    )


def reward_sets(source: str) -> set[str]:
    """Sets of windows that training a reward is given."""
    return {"base", "expert", *tasks.SOURCES[source]}


def reward_members(source: str, population: int) -> train.Members:
    """Rewards that share the base and its data; the experts and theirs are their own."""
    axes = {n: None if n == "base" else d.MEMBER_AXES for n in reward_sets(source)}
    return train.Members(population, axes, {"base": None, "expert": 0})


def train_stage(
    folder: Path,
    task: train.Task,
    config: ConfigDict,
    *,
    settings: dict[str, Any],
    inputs: dict[str, str],
    data: Any,
    frozen: Any = None,
    members: train.Members = train.Members(),
    seed: int,
    evaluate: Callable[[train.TrainState], dict[str, Any]],
) -> Params:
    """Trains one stage from where it stands; returns averaged parameters on the host."""
    # How often a run is written and on how many devices it runs is no setting.
    free = ("checkpoint_every", "devices")
    asked = {k: v for k, v in config.to_dict().items() if k not in free}
    settings = {
        **settings,
        "training": asked,
        "seed": seed,
        "population": members.population,
    }
    done = report.open_stage(folder, settings, inputs)
    began = time.time()
    state = train.optimise(
        task,
        tasks.optimiser(config),
        data=data,
        frozen=frozen,
        steps=config.steps,
        seed=seed,
        workdir=folder,
        name=folder.name,
        members=members,
        numerics=train.Numerics(
            config.ema_decay, config.accumulate, jnp.bfloat16 if config.bfloat16 else None
        ),
        placement=train.Placement(train.make_mesh(config.devices or jax.device_count())),
        loop=train.Loop(
            steps_per_dispatch=config.steps_per_dispatch,
            log_every=config.steps_per_dispatch,
            checkpoint_every=config.checkpoint_every,
            evaluate=evaluate,
            evaluate_every=max(config.steps // 5, 1),
            wandb=_wandb,
        ),
    )
    params = jax.device_get(state.ema_params)
    if not done:
        report.close_stage(folder, {"steps": config.steps, "seconds": time.time() - began})
    return params


def train_reward_stage(
    folder: Path,
    section: ConfigDict,
    *,
    settings: dict[str, Any],
    inputs: dict[str, str],
    seed: int,
    model: tasks.Model,
    base: Params,
    experts: Params,
    sets: Callable[[str], dict[str, d.Windows]],
    samples: Callable[[], dict[str, d.Windows]],
) -> Params:
    """Trains experts x seeds rewards in one program; member = expert * seeds + seed.

    Args:
        folder: of the stage.
        section: of the config.
        settings: what else the stage depends on.
        inputs: digests of the stages it reads.
        seed: of parameters and noise.
        model: both denoisers.
        base: parameters of the base.
        experts: parameters of the experts, stacked.
        sets: windows of one split: of the base, and stacked of the experts.
        samples: the same from the models alone, for ``source="models"``.
    """
    reward = tasks.build_reward(section, model)
    task = tasks.reward_task(model, reward, section.source, section.batch_size)
    repeat: Callable[[Any], Any] = lambda x: np.repeat(np.asarray(x), section.seeds, 0)

    def repeated(windows: dict[str, d.Windows]) -> dict[str, d.Windows]:
        many = lambda w: w._replace(offset=repeat(w.offset), count=repeat(w.count))
        return {n: w if n == "base" else many(w) for n, w in windows.items()}

    def of_split(name: str, count: int) -> dict[str, d.Windows]:
        windows = sets(name)
        if section.source == "crossed":
            pair = (model, base, experts)
            windows |= crossed_samples(*pair, windows, count, seed + d.SPLITS.index(name))
        return repeated(windows)

    # A finished stage only gives its parameters back.
    count = 1 if (folder / "report.json").exists() else section.samples
    few = min(count, validation.EVALUATION_WINDOWS)
    frozen = {"base": base, "expert": jax.tree.map(repeat, experts)}
    val = of_split("val", few)
    drawn = section.source == "models"
    return train_stage(
        folder,
        task,
        section,
        settings=settings,
        inputs=inputs,
        data=repeated(samples()) if drawn else of_split("train", count),
        frozen=frozen,
        members=reward_members(section.source, len(val["expert"].count)),
        seed=seed,
        evaluate=validation.fvu_by_level(model, reward, frozen, val),
    )
