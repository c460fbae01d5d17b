"""The models of a run, one stage each: base, expert, rewards, and what those meet."""

from collections.abc import Callable

import jax
import numpy as np

from diffreward import data as d
from diffreward import train
from diffreward.learn import denoising_task
from diffreward.types import Params
from experiments import baselines, samples, stages, validation
from experiments.locomotion.data import (
    Prepared,
    both_windows,
    first_states,
    noised,
    windows,
)
from experiments.locomotion.record import Run, Trained
from experiments.locomotion.rows import wanted
from experiments.locomotion.visited import visited_states, visited_windows


def train_all(run: Run, prepared: Prepared) -> Trained:
    """Trains every model that is not there yet."""
    seed = run.config.seed
    base = train_base(run, prepared, "base", seed)
    expert = train_expert(run, prepared, base)
    rewards = {
        name: train_rewards(run, prepared, base, expert, name) for name in run.rewards
    }
    for turn in range(1, run.config.rewards.rounds + 1):
        rewards["rewards"] = train_again(run, prepared, base, expert, rewards, turn)
    trained = Trained(
        base=base,
        expert=expert,
        rewards=rewards,
        baselines={
            name: BASELINES[name](run, prepared)
            for name in BASELINES
            if name in wanted(run)
        },
    )
    if not run.config.other_base:
        return trained
    # Rewards stay what they are; only the model they steer is another one.
    other = train_base(run, prepared, "other_base", seed + 100)
    return trained._replace(base=other)


def train_base(run: Run, prepared: Prepared, name: str, seed: int) -> Params:
    """Trains a base Diffuser; returns its averaged parameters."""
    model, section = run.denoiser, run.config.base
    cut = lambda split: windows(run, prepared.normaliser, noised(run, prepared, split))
    level = run.config.data.base_noise
    return stages.train_stage(
        run.workdir / name,
        denoising_task(model, section.batch_size),
        section,
        settings=_settings(run) | ({"noise": level} if level else {}),
        inputs=run.digests("data"),
        data=cut("train"),
        seed=seed,
        evaluate=validation.denoising_error(model, cut("val")),
    )


def train_expert(run: Run, prepared: Prepared, base: Params) -> Params:
    """Trains the expert Diffuser, from the base or from nothing."""
    model, section = run.denoiser.of_expert, run.config.expert
    initial = base if section.init == "base" else None
    cut = lambda split: windows(run, prepared.normaliser, prepared.expert[split])
    return stages.train_stage(
        run.workdir / "expert",
        denoising_task(model, section.batch_size, initial),
        section,
        settings=_settings(run, expert=True),
        inputs=run.digests("data", "base"),
        data=cut("train"),
        seed=run.config.seed + 1,
        evaluate=validation.denoising_error(model, cut("val")),
    )


def round_name(turn: int) -> str:
    """Stage of the rewards of one round of visited states; round 0 has none."""
    return f"rewards_{turn}" if turn else "rewards"


def train_again(
    run: Run,
    prepared: Prepared,
    base: Params,
    expert: Params,
    rewards: dict[str, Params],
    turn: int,
) -> Params:
    """Trains the rewards on what the last ones' steered base met as well, of all rounds."""
    normaliser, now = prepared.normaliser, rewards["rewards"]
    states = [
        d.read_arrays(run.workdir / f"visited_{n}" / "states.npz")["states"]
        for n in range(1, turn)
    ]
    last = round_name(turn - 1)
    states.append(visited_states(run, normaliser, base, now, last, turn))
    every = np.concatenate(states, axis=1)

    def met(split: str, count: int) -> dict[str, d.Windows]:
        asked = (run, normaliser, base, now, every, split, count)
        return {"steered": visited_windows(*asked)}

    return train_rewards(run, prepared, base, expert, "rewards", round_name(turn), met)


def train_rewards(
    run: Run,
    prepared: Prepared,
    base: Params,
    expert: Params,
    name: str,
    folder: str = "",
    met: Callable[[str, int], dict[str, d.Windows]] | None = None,
) -> Params:
    """Trains all seeds of one kind of reward in one program.

    ``met`` are windows of a split beside those of the data, where the section's source has
    the states that a round of steering met; its stage is ``folder``.
    """
    model, seed = run.denoiser, run.config.seed
    experts = jax.tree.map(lambda x: np.asarray(x)[None], expert)

    def sets(split: str) -> dict[str, d.Windows]:
        both = both_windows(run, prepared, split)
        return {"base": both["base"], "expert": d.stack_windows([both["expert"]])}

    def from_models() -> dict[str, d.Windows]:
        states, act_dim = first_states(run), run.task.act_dim
        pair = (model, base, experts)
        return samples.model_samples(*pair, states, prepared.normaliser, act_dim, seed)

    section, read = run.config[name], ["data", "base", "expert"]
    if met is not None:
        turns = int(folder.rpartition("_")[2])
        read += [f"visited_{n}" for n in range(1, turns + 1)]
        section = section.copy_and_resolve_references()
        with section.unlocked():
            section.source = "steered"
    return stages.train_reward_stage(
        run.workdir / (folder or name),
        section,
        settings=_settings(run),
        inputs=run.digests(*read),
        more=met,
        start=run.config.start,
        seed=seed + 2,
        model=model,
        base=base,
        experts=experts,
        sets=sets,
        samples=from_models,
    )


def train_discriminator(run: Run, prepared: Prepared) -> Params:
    """Trains all seeds of the discriminator in one program."""
    section = run.config.discriminator
    task = discriminator_task(run)
    return stages.train_stage(
        run.workdir / "discriminator",
        task,
        section,
        settings=_settings(run),
        inputs=run.digests("data"),
        data=both_windows(run, prepared, "train"),
        members=train.Members(section.seeds),
        seed=run.config.seed + 3,
        evaluate=validation.held_out_metrics(task, both_windows(run, prepared, "val")),
    )


def discriminator_task(run: Run) -> train.Task:
    """What its training and its estimate share."""
    batch_size = run.config.discriminator.batch_size
    return baselines.discriminator_task(run.denoiser, run.discriminator, batch_size)


def train_value(run: Run, prepared: Prepared) -> Params:
    """Trains Diffuser's guide: returns to go of the base's data, standardised."""
    section = run.config.value
    task = baselines.value_task(run.denoiser, run.value, section.batch_size)
    base = {
        split: d.with_returns(prepared.base[split], section.discount)
        for split in ("train", "val")
    }
    to_go = d.fit_gaussian(base["train"].observations[:, -1:])
    normaliser = jax.tree.map(
        lambda a, b: np.concatenate([a, b]), prepared.normaliser, to_go
    )
    return stages.train_stage(
        run.workdir / "value",
        task,
        section,
        settings=_settings(run),
        inputs=run.digests("data"),
        data=windows(run, normaliser, base["train"]),
        members=train.Members(section.seeds),
        seed=run.config.seed + 4,
        evaluate=validation.held_out_metrics(task, windows(run, normaliser, base["val"])),
    )


BASELINES = {"discriminator": train_discriminator, "value": train_value}
"""Rows that are trained on the data and not on the models, by their section."""


def _settings(run: Run, expert: bool = False) -> dict:
    """What every model depends on besides its own section, and an expert besides."""
    own = {"expert_model": run.config.expert_model.to_dict()}
    another = expert and run.denoiser.expert is not None
    # Stages that were trained before there were policies are of none.
    model = {k: v for k, v in run.config.model.items() if k != "policy" or v}
    return {"model": model} | (own if another else {})
