"""LeRobot's diffusion policies: ``config.json`` of type ``diffusion``, and its weights.

A policy maps noise to a chunk of actions under a history of observations. What it was
normalised with is part of it: the policy's own statistics, among the weights or, since
version 0.4, in the file of its preprocessor. Cameras are not seen here: a policy that has
some is told what its own encoder makes of them.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from diffreward import files
from diffreward.data import Normaliser
from diffreward.diffusion import Prediction, Schedule
from diffreward.interop.diffuser import check_fit
from diffreward.interop.layout import Dialect, to_params, unet_table
from diffreward.interop.lerobot_statistics import (
    ENVIRONMENT,
    STATE,
    STATISTICS,
    Feature,
    Statistics,
)
from diffreward.interop.options import check_options, read_object, shown, whole, wholes
from diffreward.interop.scheduler import described_schedule
from diffreward.interop.tensors import read_tensors
from diffreward.networks import FilmUnet
from diffreward.types import Params

UNET = "diffusion.unet."
CAMERAS = "diffusion.rgb_encoder."
READ = (
    *("type", "n_obs_steps", "horizon", "input_features", "output_features"),
    *("normalization_mapping", "down_dims", "kernel_size", "n_groups"),
    *("diffusion_step_embed_dim", "use_film_scale_modulation", "num_train_timesteps"),
    *("beta_schedule", "beta_start", "beta_end", "prediction_type"),
)
IGNORED = {
    *(
        "n_action_steps",
        "drop_n_last_frames",
        "num_inference_steps",
        "noise_scheduler_type",
    ),
    *("clip_sample", "clip_sample_range", "do_mask_loss_for_padding", "device", "use_amp"),
    *("vision_backbone", "resize_shape", "crop_ratio", "crop_shape", "crop_is_random"),
    *("pretrained_backbone_weights", "use_group_norm", "spatial_softmax_num_keypoints"),
    *("use_separate_rgb_encoder_per_camera", "gradient_checkpointing", "compile_model"),
    *("compile_mode", "use_peft", "push_to_hub", "repo_id", "private", "tags", "license"),
    *("pretrained_path", "policy_action_contract", "pretrained_revision"),
}
"""Options of sampling, training, cameras and publishing."""
TRAINING = ("optimizer_", "scheduler_")
"""Beginnings of options that are over."""


class Told(NamedTuple):
    """One array of what a model is told beside its sample."""

    name: str | None
    """As the context must call it; None: as it likes."""
    shape: tuple[int, ...]


class Policy(NamedTuple):
    """A diffusion policy, in the units of its data."""

    network: FilmUnet
    params: Params
    schedule: Schedule
    prediction: Prediction
    shape: tuple[int, int]
    """Actions of a chunk, and numbers of each."""
    told: tuple[Told, ...]
    normaliser: Normaliser
    """Of the actions."""
    observed: tuple[Normaliser | None, ...]
    """Of every array it is told."""

    def apply(self, x: Array, t: Array, *told: Array) -> Array:
        """The prediction for a chunk in normalised units, under observations in theirs."""
        steps = []
        for part, normaliser, value in zip(self.told, self.observed, told, strict=True):
            rows = jnp.asarray(value, jnp.float32).reshape(part.shape)
            if normaliser is not None:
                shift, scale = (jnp.asarray(v)[None] for v in normaliser)
                rows = (rows - shift) / scale
            steps.append(rows)
        # Everything of the first step comes before everything of the second.
        condition = jnp.concatenate(steps, axis=-1).reshape(-1)
        answer: Any = self.network.apply(self.params, x, t, condition)
        return answer


def is_lerobot(config: dict[str, Any]) -> bool:
    """Whether a config is of a policy of LeRobot."""
    return "type" in config and "input_features" in config


@files.contained
def load_lerobot(folder: str | Path, variant: str | None = None) -> Policy:
    """A diffusion policy of LeRobot.

    Without cameras it is told ``state`` and, if it has one, ``environment_state``, shaped
    (steps of observation, numbers), as they were recorded. With cameras it is told
    ``condition``, (steps of observation, numbers): what the policy's own code makes of
    state and pictures before the U-Net.

    Raises:
        ValueError: if a file is missing or damaged, an option is unknown or has a value
            that our network does not have, or the statistics are not there; by name.
    """
    folder = Path(folder)
    path = folder / "config.json"
    config = read_object(path)
    if config.get("type") != "diffusion":
        raise ValueError(
            f"{path}: a policy of type {shown(config.get('type'))} is not supported; only "
            "'diffusion'"
        )
    ours = {k: v for k, v in config.items() if not k.startswith(TRAINING)}
    check_options(ours, path, read=READ, fixed={}, ignored=IGNORED)
    if config["use_film_scale_modulation"] not in (True, False):
        raise ValueError(f"{path}: use_film_scale_modulation is neither true nor false")
    actions = _features(config, "output_features", path)
    if set(actions) != {"action"}:
        raise ValueError(f"{path}: output_features are {shown(sorted(actions))}, no action")
    action = actions["action"]
    observations = _features(config, "input_features", path)
    steps = whole(config, "n_obs_steps", path)
    tensors = read_tensors(folder, variant)
    if strange := [n for n in tensors if not n.startswith((UNET, CAMERAS, *STATISTICS))]:
        raise ValueError(f"{folder} has the unexpected tensor {strange[0]}")
    network, params, features = _network(config, tensors, action.size, folder)
    statistics = Statistics(config, tensors, folder)
    names = [name for name in (STATE, ENVIRONMENT) if name in observations]
    if cameras := sorted(set(observations) - {STATE, ENVIRONMENT}):
        # Their sizes are the encoder's; only the U-Net says how many numbers it is told.
        if features % steps:
            raise ValueError(f"{folder}: {features} numbers of {steps} observations")
        told, observed = (Told("condition", (steps, features // steps)),), (None,)
        odd = [c for c in cameras if not c.startswith("observation.image")]
        if odd:
            raise ValueError(f"{path}: input_features has {odd[0]}, which is not supported")
    else:
        told = tuple(
            Told(name.removeprefix("observation."), (steps, observations[name].size))
            for name in names
        )
        observed = tuple(statistics.normaliser(observations[name]) for name in names)
        if sum(math.prod(part.shape) for part in told) != features:
            raise ValueError(
                f"{folder}: the U-Net is told {features} numbers, input_features are "
                f"{steps} times {sum(f.size for f in observations.values())}"
            )
    schedule, prediction = described_schedule(config, path)
    return Policy(
        network,
        params,
        schedule,
        prediction,
        (whole(config, "horizon", path), action.size),
        told,
        statistics.normaliser(action),
        observed,
    )


def _features(config: dict[str, Any], name: str, path: Path) -> dict[str, Feature]:
    """Kind of every feature, and its numbers: the first of its axes."""
    found = config[name]
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{path}: {name} = {shown(found)} names no feature")
    features = {}
    for key, feature in found.items():
        if not isinstance(feature, dict) or not {"type", "shape"} <= set(feature):
            raise ValueError(f"{path}: {name} has {key} without type or shape")
        size = wholes(feature, "shape", path)[0]
        features[key] = Feature(key, str(feature["type"]), size)
    return features


def _network(
    config: dict[str, Any], tensors: dict[str, np.ndarray], dim: int, folder: Path
) -> tuple[FilmUnet, Params, int]:
    """The U-Net, and the numbers it is told beside the level."""
    path = folder / "config.json"
    widths = list(wholes(config, "down_dims", path))
    time_dim = whole(config, "diffusion_step_embed_dim", path, least=4)
    network = FilmUnet(
        tuple(widths),
        time_dim,
        whole(config, "kernel_size", path),
        whole(config, "n_groups", path),
        config["use_film_scale_modulation"],
    )
    own = {k.removeprefix(UNET): v for k, v in tensors.items() if k.startswith(UNET)}
    anchor = own.get("mid_modules.0.cond_encoder.1.weight")
    if anchor is None or anchor.ndim != 2 or anchor.shape[1] <= time_dim:
        raise ValueError(
            f"{folder} lacks {UNET}mid_modules.0.cond_encoder.1.weight, which reads level "
            "and observations"
        )
    features = anchor.shape[1] - time_dim
    params = to_params(
        unet_table(_dialect(len(widths)), widths, dim, False), own, str(folder)
    )
    length = 2 ** (len(widths) - 1)
    check_fit(network, params, length, dim, str(folder), jnp.zeros(features))
    return network, params, features


def _dialect(levels: int) -> Dialect:
    parts = {f"mid_res_{k}": f"mid_modules.{k}" for k in (0, 1)}
    for i in range(levels):
        down, up = f"down_modules.{i}", f"up_modules.{levels - 1 - i}"
        for k in (0, 1):
            parts[f"down_{i}_res_{k}"] = f"{down}.{k}"
            parts[f"up_{i}_res_{k}"] = f"{up}.{k}"
        parts[f"down_{i}_resample"], parts[f"up_{i}_resample"] = f"{down}.2", f"{up}.2"
    return Dialect(
        time=("diffusion_step_encoder.1", "diffusion_step_encoder.3"),
        conv=lambda block, i: f"{block}.conv{i + 1}.block.0",
        norm=lambda block, i: f"{block}.conv{i + 1}.block.1",
        block_time="cond_encoder.1",
        skip="residual_conv",
        parts=parts,
        final=("final_conv.0.block.0", "final_conv.0.block.1", "final_conv.1"),
    )
