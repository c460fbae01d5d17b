"""Diffusion policies as their authors' code saves them (Chi et al., 2023): one ``.ckpt``.

It holds the settings of the run (OmegaConf's objects), the policy and its average, each
with its U-Net and the statistics it was normalised with. Cameras are not seen here: a
policy that has some is told what its own encoder makes of them.
"""

from pathlib import Path
from typing import Any

import numpy as np

from diffreward.data import Normaliser
from diffreward.files import FileValueError
from diffreward.interop import omegaconf
from diffreward.interop.copies import choose_copy, find_copies
from diffreward.interop.film_unet import ANCHOR, ORIGINAL, Policy, Told, film_unet
from diffreward.interop.options import check_options, shown, whole, wholes
from diffreward.interop.scheduler import read_scheduler
from diffreward.interop.tensors import finite
from diffreward.networks import FilmUnet

UNET, STATISTICS = "model.", "normalizer.params_dict."
OTHERS = ("obs_encoder.", "mask_generator.", "normalizer.")
"""Beginnings of names of what the policy is made of besides."""
LOWDIM = "DiffusionUnetLowdimPolicy"
CAMERAS = ("DiffusionUnetImagePolicy", "DiffusionUnetHybridImagePolicy")
NETWORK = ("diffusion_step_embed_dim", "down_dims", "kernel_size", "n_groups")
SAMPLING = (
    *("num_inference_steps", "oa_step_convention", "crop_shape", "eval_fixed_crop"),
    *("obs_encoder_group_norm", "obs_encoder", "shape_meta", "obs_dim", "model"),
    *("n_action_steps", "pred_action_steps_only"),
)
"""Options of sampling and of the encoder, and such as are read where they matter."""


def is_diffusion_policy(saved: Any) -> bool:
    """Whether a checkpoint is one of the authors' code."""
    return isinstance(saved, dict) and {"cfg", "state_dicts"} <= saved.keys()


def diffusion_policy(saved: dict[str, Any], path: Path, copy: str | None = None) -> Policy:
    """A diffusion policy from what its checkpoint holds.

    Without cameras it is told ``obs``, (steps of observation, numbers), as they were
    recorded. With cameras it is told ``condition``, (steps, numbers): what the policy's own
    encoder makes of the observations.

    Raises:
        ValueError: if settings or weights are missing, damaged or of another kind of
            policy; by name.
    """
    try:
        settings = omegaconf.plain(saved["cfg"])
    except ValueError as error:
        raise FileValueError(f"{path}: {error}") from None
    config = settings.get("policy") if isinstance(settings, dict) else None
    if not isinstance(config, dict):
        raise FileValueError(f"{path}: its cfg has no policy")
    place = Path(f"{path}: cfg.policy")
    kind = str(config.get("_target_")).rpartition(".")[2]
    if kind not in (LOWDIM, *CAMERAS):
        raise FileValueError(
            f"{place} is a {shown(kind)}, which is not supported; only "
            f"{', '.join((LOWDIM, *CAMERAS))}"
        )
    network, action = _network(config, kind, place)
    _check_conditions(config, place)
    steps = whole(config, "n_obs_steps", place)
    chunk = "n_action_steps" if config.get("pred_action_steps_only") else "horizon"
    schedule, prediction = _schedule(config, place)

    copies = find_copies(saved["state_dicts"], f"{UNET}{ANCHOR}", str(path))
    if not copies:
        raise FileValueError(f"{path} lacks {UNET}{ANCHOR}, which reads the observations")
    tensors = choose_copy(copies, copy, str(path)).tensors
    if strange := [n for n in tensors if not n.startswith((UNET, *OTHERS))]:
        raise FileValueError(f"{path} has the unexpected tensor {strange[0]}")
    own = {k.removeprefix(UNET): v for k, v in tensors.items() if k.startswith(UNET)}
    params, features = film_unet(network, ORIGINAL, own, action, str(path), UNET)
    if features % steps:
        raise FileValueError(f"{path}: {features} numbers of {steps} observations")
    size = features // steps
    lowdim = kind == LOWDIM
    if lowdim and config.get("obs_dim") != size:
        raise FileValueError(
            f"{path}: the U-Net is told {features} numbers, which are not {steps} times "
            f"cfg.policy.obs_dim = {shown(config.get('obs_dim'))}"
        )
    return Policy(
        network,
        params,
        schedule,
        prediction,
        (whole(config, chunk, place), action),
        (Told("obs" if lowdim else "condition", (steps, size)),),
        _normaliser(tensors, "action", action, path),
        (_normaliser(tensors, "obs", size, path) if lowdim else None,),
    )


def _network(config: dict[str, Any], kind: str, place: Path) -> tuple[FilmUnet, int]:
    """The U-Net, and the numbers of an action."""
    scale = "cond_predict_scale"
    read = ("horizon", "n_obs_steps", "n_action_steps", "noise_scheduler")
    if kind == LOWDIM:
        own, where = config.get("model"), Path(f"{place}.model")
        if not isinstance(own, dict):
            raise FileValueError(f"{place} lacks model")
        known = {"local_cond_dim": None}
        check_options(
            own, where, read=("input_dim", scale, *NETWORK), fixed=known, ignored=GLOBAL
        )
        check_options(
            config, place, read=(*read, "action_dim"), fixed=FIXED, ignored=SAMPLING
        )
        action = whole(own, "input_dim", where)
    else:
        own, where = config, place
        named = (*read, "shape_meta", scale, *NETWORK)
        check_options(config, place, read=named, fixed=FIXED, ignored=SAMPLING)
        found = config["shape_meta"]
        told = found.get("action") if isinstance(found, dict) else None
        if not isinstance(told, dict) or "shape" not in told:
            raise FileValueError(f"{place}: shape_meta has no shape of the action")
        (action,) = wholes(told, "shape", Path(f"{place}.shape_meta.action"))
    if own[scale] not in (True, False):
        raise FileValueError(f"{where}: {scale} is neither true nor false")
    network = FilmUnet(
        wholes(own, "down_dims", where),
        whole(own, "diffusion_step_embed_dim", where, least=4),
        whole(own, "kernel_size", where),
        whole(own, "n_groups", where),
        own[scale],
    )
    return network, action


GLOBAL = ("global_cond_dim",)
"""Told by the weights."""
FIXED = {"obs_as_local_cond": False, "obs_as_global_cond": True}


def _check_conditions(config: dict[str, Any], place: Path) -> None:
    # By default observations are a part of the chunk in the one class, not in the others.
    if str(config["_target_"]).endswith(LOWDIM) and not config.get("obs_as_global_cond"):
        raise FileValueError(
            f"{place}: obs_as_global_cond is not set: observations are a part of the "
            "chunk, which is not supported"
        )


def _schedule(config: dict[str, Any], place: Path) -> Any:
    found = config["noise_scheduler"]
    if not isinstance(found, dict) or "_target_" not in found:
        raise FileValueError(f"{place}: noise_scheduler names no class")
    name = str(found["_target_"]).rpartition(".")[2]
    told = {k: v for k, v in found.items() if k != "_target_"} | {"_class_name": name}
    return read_scheduler(told, Path(f"{place}.noise_scheduler"))


def _normaliser(
    tensors: dict[str, np.ndarray], name: str, size: int, path: Path
) -> Normaliser:
    """Coordinates that the policy sees an array in: it takes ``x scale + offset``."""
    parts = []
    for part in ("scale", "offset"):
        key = f"{STATISTICS}{name}.{part}"
        value = tensors.get(key)
        if value is None or value.shape not in ((size,), (1,)):
            raise FileValueError(f"{path} has no {key} of {size} numbers")
        finite([(key, value)], str(path))
        parts.append(np.broadcast_to(np.asarray(value, np.float64), size))
    scale, offset = parts
    if (scale <= 0).any():
        raise FileValueError(f"{path}: {STATISTICS}{name}.scale is not positive")
    return Normaliser((-offset / scale).astype(np.float32), (1 / scale).astype(np.float32))
