"""A pair whose alignment is known: digits, and digits without some of the classes."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from configs.common import ConfigDict
from diffreward import data as d
from diffreward.learn import Denoiser, denoising_task
from diffreward.networks import EnergyDenoiser, Flattened, TrajectoryMLP
from diffreward.train import TrainState
from diffreward.types import EpsFn, Params
from experiments import limits, stages
from experiments.build import build_schedule, energy_net
from experiments.images import pair as image_pairs
from experiments.images import records as image_records

SHAPE = (8, 8, 1)
FRACTIONS = (0.7, 0.05, 0.25)


def check(config: ConfigDict) -> None:
    """Refuses values that a stage would only meet later."""
    section = config.digits
    removed = list(section.removed)
    known = [n for n in removed if type(n) is int and 0 <= n <= 9]
    if not 1 <= len(removed) <= 9 or len(set(known)) < len(removed):
        raise ValueError(
            f"digits.removed must be some, not all, of the digits 0 to 9, got {removed}"
        )
    if not 0 <= section.kept_share < 1:
        raise ValueError(
            f"digits.kept_share must be in [0, 1), got {section.kept_share}; 1 is the base"
        )
    limits.at_least(section, "digits", requests=1, num_steps=1, **limits.NETWORK)
    limits.check_training(config, "digits.base", "digits.aligned")
    build_model(section)
    if config.records.levels > section.num_steps:
        raise ValueError(
            f"records.levels={config.records.levels} is more than the models have; use "
            f"at most digits.num_steps={section.num_steps}"
        )
    try:
        d.split_episodes(section.requests, config.seed, image_records.FRACTIONS)
    except ValueError:
        raise ValueError(
            f"digits.requests is {section.requests}; training, validation and test need "
            "one each, use 10 or more"
        ) from None


def build_model(section: ConfigDict) -> Denoiser:
    """Denoiser of both models; a digit is 64 numbers."""
    network: Any = Flattened(
        TrajectoryMLP(section.width, section.depth, time_width=section.time_width)
    )
    if section.conservative:
        network = EnergyDenoiser(network)
    schedule = build_schedule("digits.schedule", section.schedule, section.num_steps)
    return Denoiser(network, schedule, pinned=jnp.zeros(SHAPE, bool))


def make_pair(config: ConfigDict, workdir: Path) -> image_pairs.ImagePair:
    """Trains what is missing of both models."""
    section = config.digits
    digits = d.load_digits()
    split = d.split_episodes(len(digits.labels), config.seed, FRACTIONS)
    sets = {name: d.select_images(digits, index) for name, index in split.items()}
    model = build_model(section)
    base = train(config, workdir / "base", model, sets, section.base, None)
    kept = {name: keep(config, images) for name, images in sets.items()}
    aligned = train(config, workdir / "aligned", model, kept, section.aligned, base)

    def models(params: Params, context: Any) -> tuple[EpsFn, EpsFn]:
        del context
        return model.eps_fn(params["base"]), model.eps_fn(params["expert"])

    return image_pairs.ImagePair(
        name="digits without " + ", ".join(map(str, section.removed)),
        shape=SHAPE,
        schedule=model.schedule,
        models=models,
        params={"base": base, "expert": aligned},
        prompts=image_pairs.numbered(section.requests),
        contexts=image_pairs.no_context,
        decode=image_pairs.grey,
        audience=known(config, sets["test"]),
        judged=known(config, sets["train"]),
        energy=image_pairs.BaseEnergy(
            energy_net(model), base if section.conservative else None
        ),
    )


def known(config: ConfigDict, digits: d.LabelledImages) -> image_pairs.Audience:
    """Digits, of which the removed classes are what the aligned model avoids."""
    avoided = np.isin(digits.labels, list(config.digits.removed))
    return image_pairs.Audience(digits.images, digits.labels, ~avoided)


def keep(config: ConfigDict, digits: d.LabelledImages) -> d.LabelledImages:
    """What the aligned model sees: the removed classes are left out, or all but a share."""
    section = config.digits
    rng = np.random.default_rng([config.seed, len(digits.labels)])
    removed = np.isin(digits.labels, list(section.removed))
    lucky = rng.random(len(removed)) < section.kept_share
    return d.select_images(digits, np.flatnonzero(~removed | lucky))


def train(
    config: ConfigDict,
    folder: Path,
    model: Denoiser,
    sets: dict[str, d.LabelledImages],
    section: ConfigDict,
    initial: Params | None,
) -> Params:
    """One denoiser; the aligned one starts from the base, as fine-tuned models do."""

    def draw(size: int) -> Any:
        def batch(data: Any, key: Array) -> Any:
            rows = jax.random.randint(key, (size,), 0, data.shape[0])
            # No entry of an image is padding.
            return {"x_0": data[rows], "valid": jnp.ones((size, 1))}

        return batch

    validation = jnp.asarray(sets["val"].images)
    whole = denoising_task(model, len(validation), None, draw(512))
    batch = whole.draw(validation, jax.random.key(0))
    error = jax.jit(lambda p: whole.loss(p, None, jax.random.key(1), batch)[0])

    def evaluate(state: TrainState) -> dict[str, Any]:
        return {"loss": error(jax.device_get(state.ema_params))}

    keys = ("removed", "kept_share") if initial is not None else ()
    shared = ("width", "depth", "time_width", "conservative", "schedule", "num_steps")
    return stages.train_stage(
        folder,
        denoising_task(model, section.batch_size, initial, draw(section.batch_size)),
        section,
        settings={k: config.digits[k] for k in (*shared, *keys)},
        inputs={},
        data=jnp.asarray(sets["train"].images),
        seed=config.seed,
        evaluate=evaluate,
    )


SOURCE = image_pairs.PairSource(
    check, make_pair, stages=("base", "aligned"), has_energy=True
)
