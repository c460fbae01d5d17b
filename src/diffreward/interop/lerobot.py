"""LeRobot's diffusion policies: ``config.json`` of type ``diffusion``, and its weights.

A policy maps noise to a chunk of actions under a history of observations. What it was
normalised with is part of it: the policy's own statistics, among the weights or, since
version 0.4, in the file of its preprocessor. Cameras are not seen here: a policy that has
some is told what its own encoder makes of them.
"""

import math
from pathlib import Path
from typing import Any

from diffreward import files
from diffreward.interop.film_unet import LEROBOT, Policy, Told, film_unet
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
    network = _network(config, path)
    own = {k.removeprefix(UNET): v for k, v in tensors.items() if k.startswith(UNET)}
    params, features = film_unet(network, LEROBOT, own, action.size, str(folder), UNET)
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


def _network(config: dict[str, Any], path: Path) -> FilmUnet:
    return FilmUnet(
        wholes(config, "down_dims", path),
        whole(config, "diffusion_step_embed_dim", path, least=4),
        whole(config, "kernel_size", path),
        whole(config, "n_groups", path),
        config["use_film_scale_modulation"],
    )
