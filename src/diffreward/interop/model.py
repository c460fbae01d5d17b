"""Any checkpoint of a trajectory model, by path."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Array

from diffreward import files
from diffreward.diffusion import Prediction, Schedule
from diffreward.interop.diffuser import Loaded, load_unet, read_state_dict
from diffreward.interop.huggingface import load_unet1d
from diffreward.interop.scheduler import load_scheduler


class ForeignModel(NamedTuple):
    """A frozen network, and what its files say about it."""

    apply: Callable[[Array, Array], Array]
    """Maps (x_t, t) of one sample (horizon, dim) to the prediction."""
    schedule: Schedule
    prediction: Prediction | None
    """None if the checkpoint does not say."""
    dim: int
    network: Any
    params: Any


@files.contained
def load_model(path: str | Path, copy: str | None = None) -> ForeignModel:
    """Reads a Diffuser state dict, or a Hugging Face folder of a ``UNet1DModel``.

    The folder is a pipeline (``unet/`` and ``scheduler/``), or a model folder with
    ``scheduler_config.json`` in it or in ``scheduler/``.

    Args:
        path: of the file or folder.
        copy: of a checkpoint that holds several: of a file its name, by default the
            averaged one; of a folder the variant of its weights, by default the main one.

    Raises:
        ValueError: if it is neither, is damaged, or has no noise schedule.
    """
    path = Path(path)
    if path.is_dir():
        unet = path / "unet" if (path / "unet").is_dir() else path
        loaded = load_unet1d(unet, copy)
        places = (path / "scheduler", path)
        folder = next((p for p in places if (p / "scheduler_config.json").exists()), None)
        if folder is None:
            raise ValueError(
                f"{path} has no scheduler/scheduler_config.json, so its noise schedule is "
                "unknown; copy it there from the pipeline"
            )
        schedule, prediction = load_scheduler(folder)
        return _model(loaded, schedule, prediction)
    state = read_state_dict(path, copy)
    loaded = load_unet(state.tensors, str(path))
    if state.schedule is None:
        raise ValueError(
            f"{path} holds a temporal U-Net without its noise schedule (betas); save the "
            "whole diffusion object's state dict"
        )
    return _model(loaded, state.schedule, None)


def _model(
    loaded: Loaded, schedule: Schedule, prediction: Prediction | None
) -> ForeignModel:
    apply = lambda x, t: loaded.network.apply(loaded.params, x, t)
    return ForeignModel(
        apply, schedule, prediction, loaded.dim, loaded.network, loaded.params
    )
