"""Any checkpoint of a diffusion model that is known here, by path."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Array

from diffreward import files
from diffreward.data import Normaliser
from diffreward.diffusion import Prediction, Schedule
from diffreward.interop.diffuser import Loaded, load_unet, state_dict_of
from diffreward.interop.diffusion_policy import diffusion_policy, is_diffusion_policy
from diffreward.interop.film_unet import Policy, Told
from diffreward.interop.huggingface import load_unet1d
from diffreward.interop.image_unet import load_unet2d
from diffreward.interop.lerobot import is_lerobot, load_lerobot
from diffreward.interop.options import check_class, read_object
from diffreward.interop.scheduler import load_scheduler
from diffreward.interop.tensors import read_checkpoint


class ForeignModel(NamedTuple):
    """A frozen network, and what its files say about it."""

    apply: Callable[..., Array]
    """Maps (x_t, t) of one sample, and what is ``told`` of it, to the prediction."""
    schedule: Schedule
    prediction: Prediction | None
    """None if the checkpoint does not say."""
    shape: tuple[int | None, ...]
    """Of a sample, (horizon, dim) or (height, width, channels); None where it is open."""
    network: Any
    params: Any
    told: tuple[Told, ...] = ()
    """Arrays that a model with a condition is told, in this order."""
    one_hot: bool = False
    """Whether what it is told is a label."""
    normaliser: Normaliser | None = None
    """Coordinates of its samples, where the checkpoint says them."""

    def check_shape(self, shape: tuple[int, ...], where: str) -> None:
        """Refuses samples that the model is not for.

        Raises:
            ValueError: saying which it is for.
        """
        fits = len(shape) == len(self.shape) and all(
            own in (None, given) for own, given in zip(self.shape, shape, strict=True)
        )
        if not fits:
            axes = AXES[len(self.shape)]
            own = ", ".join(
                axis if size is None else str(size)
                for axis, size in zip(axes, self.shape, strict=True)
            )
            raise ValueError(
                f"{where} is a model of samples shaped ({own}), that is "
                f"({', '.join(axes)}); the data are shaped {shape}"
            )


AXES = {2: ("horizon", "dim"), 3: ("height", "width", "channels")}
"""Names of the axes of a sample, by their number."""
LATENT = ("vae", "vqvae")
"""Parts of a pipeline whose U-Net sees no pixels."""


@files.contained
def load_model(path: str | Path, copy: str | None = None) -> ForeignModel:
    """Reads a Diffuser state dict, a diffusion policy, or a folder of a known kind.

    A folder is one of LeRobot's diffusion policies, or of a ``UNet1DModel`` or
    ``UNet2DModel``. Such a one is a pipeline (``unet/`` and ``scheduler/``), or a model
    folder with ``scheduler_config.json`` in it or in ``scheduler/``.

    Args:
        path: of the file or folder.
        copy: of a checkpoint that holds several: of a file its name, by default the
            averaged one; of a folder the variant of its weights, by default the main one.

    Raises:
        ValueError: if it is none, is damaged, or has no noise schedule.
    """
    path = Path(path)
    if path.is_dir():
        return _folder(path, copy)
    saved = read_checkpoint(path)
    if is_diffusion_policy(saved):
        return _policy(diffusion_policy(saved, path, copy))
    state = state_dict_of(saved, path, copy)
    loaded = load_unet(state.tensors, str(path))
    if state.schedule is None:
        raise ValueError(
            f"{path} holds a temporal U-Net without its noise schedule (betas); save the "
            "whole diffusion object's state dict"
        )
    return _trajectories(loaded, state.schedule, None)


def _folder(path: Path, copy: str | None) -> ForeignModel:
    unet = path / "unet" if (path / "unet").is_dir() else path
    config = read_object(unet / "config.json")
    if is_lerobot(config):
        return _policy(load_lerobot(unet, copy))
    check_class(config, unet / "config.json", "UNet1DModel", "UNet2DModel")
    images = config["_class_name"] == "UNet2DModel"
    latent = [name for name in LATENT if (path / name).is_dir()]
    if images and latent:
        raise ValueError(
            f"{path}: its U-Net sees latents of {latent[0]}/, no pixels; give the folder "
            f"{unet} with its scheduler beside it, and latents as samples"
        )
    loaded = load_unet2d(unet, copy) if images else load_unet1d(unet, copy)
    places = (path / "scheduler", path)
    folder = next((p for p in places if (p / "scheduler_config.json").exists()), None)
    if folder is None:
        raise ValueError(
            f"{path} has no scheduler/scheduler_config.json, so its noise schedule is "
            "unknown; copy it there from the pipeline"
        )
    schedule, prediction = load_scheduler(folder)
    if isinstance(loaded, Loaded):
        return _trajectories(loaded, schedule, prediction)
    network, params = loaded.network, loaded.params
    return ForeignModel(
        lambda x, t, *label: network.apply(params, x, t, None, *label),
        schedule,
        prediction,
        loaded.shape,
        network,
        params,
        (Told(None, (network.classes,)),) if network.classes else (),
        one_hot=network.classes > 0,
    )


def _policy(policy: Policy) -> ForeignModel:
    return ForeignModel(
        policy.apply,
        policy.schedule,
        policy.prediction,
        policy.shape,
        policy.network,
        policy.params,
        policy.told,
        normaliser=policy.normaliser,
    )


def _trajectories(
    loaded: Loaded, schedule: Schedule, prediction: Prediction | None
) -> ForeignModel:
    apply = lambda x, t: loaded.network.apply(loaded.params, x, t)
    shape = (None, loaded.dim)
    return ForeignModel(apply, schedule, prediction, shape, loaded.network, loaded.params)
