"""Noise schedules of Hugging Face folders: ``scheduler_config.json``.

The schedulers of diffusers sample in many ways, but most describe one training: that of
DDPM (Ho et al., 2020). Those are read, and all their options that only change the sampling
are ignored. Every other class is refused by name.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from diffreward import files
from diffreward.diffusion import Prediction, Schedule, cosine, from_beta
from diffreward.interop.options import number, read_object, shown

PREDICTIONS: dict[str, Prediction] = {
    "epsilon": "eps",
    "sample": "x_0",
    "v_prediction": "v",
}
MOST_LEVELS = 100_000
"""Noise levels that a schedule may have."""
TRAINED_AS_DDPM = {
    f"{name}Scheduler"
    for name in (
        *("DDPM", "DDPMParallel", "DDIM", "DDIMInverse", "DDIMParallel", "PNDM"),
        *("LMSDiscrete", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete"),
        *("KDPM2Discrete", "KDPM2AncestralDiscrete", "DEISMultistep", "SASolver"),
        *("DPMSolverMultistep", "DPMSolverMultistepInverse", "DPMSolverSinglestep"),
        *("DPMSolverSDE", "UniPCMultistep"),
    )
}
FAMILIES = {
    "Flow": "flow matching; wrap the network with diffreward.diffusion.rectified_flow",
    "EDM": "EDM's noise; wrap the network with diffreward.diffusion.variance_exploding",
    "Karras": "exploding noise; wrap it with diffreward.diffusion.variance_exploding",
    "ScoreSde": "an SDE; wrap it with a process of diffreward.diffusion",
    "LCM": "a consistency model, which predicts no score",
    "TCD": "a consistency model, which predicts no score",
    "CM": "a consistency model, which predicts no score",
    "Consistency": "a consistency model, which predicts no score",
}
"""What schedulers of other families are for, by a part of their names."""
READ = {
    *("num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "trained_betas"),
    *("prediction_type", "predict_epsilon"),
}
SAMPLING = {
    *("algorithm_type", "clip_sample", "clip_sample_range", "disable_corrector"),
    *("dynamic_thresholding_ratio", "euler_at_final", "final_sigmas_type", "flow_shift"),
    *(
        "interpolation_type",
        "lambda_min_clipped",
        "lower_order_final",
        "noise_sampler_seed",
    ),
    *("predict_x0", "predictor_order", "corrector_order", "s_noise", "s_tmax", "s_tmin"),
    *("sample_max_value", "set_alpha_to_one", "set_alpha_to_zero", "sigma_max"),
    *("sigma_min", "skip_prk_steps", "solver_order", "solver_p", "solver_type"),
    *("steps_offset", "tau_func", "tensor_format", "thresholding", "time_shift_type"),
    *("timestep_spacing", "use_beta_sigmas", "use_exponential_sigmas"),
    *("use_karras_sigmas", "use_lu_lambdas"),
}
"""Options of the sampling alone."""
VALUES = {
    "variance_type": (
        *("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", None),
    ),
    "timestep_type": ("discrete",),
}
"""Options that change what the network is given or gives, by the values that do not."""


@files.contained
def load_scheduler(folder: str | Path) -> tuple[Schedule, Prediction]:
    """Noise schedule and kind of prediction of a ``scheduler_config.json``.

    What decides numbers must be there; only the kind of prediction is ``epsilon`` where a
    known class does not say it, as in files of the first versions.

    Raises:
        ValueError: if it is missing, or its class, an option, its schedule or prediction is
            unknown.
    """
    path = Path(folder) / "scheduler_config.json"
    return read_scheduler(read_object(path), path)


def read_scheduler(config: dict[str, Any], path: Path) -> tuple[Schedule, Prediction]:
    """As :func:`load_scheduler`, of a config that stands elsewhere; ``path`` names it."""
    _check_class(config, path)
    _check_options(config, path)
    return described_schedule(config, path)


def described_schedule(config: dict[str, Any], path: Path) -> tuple[Schedule, Prediction]:
    """Noise schedule and kind of prediction, in the words of a scheduler of diffusers.

    Args:
        config: which has these words among others.
        path: of its file, for messages.

    Raises:
        ValueError: if one is missing or unknown.
    """
    kind = _prediction(config, path)
    steps = _steps(config, path)
    try:
        return _schedule(config, steps, path), kind
    except (ValueError, TypeError) as error:
        prefix = "" if str(path) in str(error) else f"{path}: "
        raise ValueError(f"{prefix}{error}") from None


def _check_class(config: dict[str, Any], path: Path) -> None:
    name = config.get("_class_name")
    if name is None:
        needed = ["num_train_timesteps", "beta_schedule", "prediction_type"]
        if missing := [key for key in needed if key not in config]:
            raise ValueError(
                f"{path} lacks _class_name, and {missing[0]} as well, so what its network "
                "was trained on is unknown"
            )
    elif not isinstance(name, str) or name not in TRAINED_AS_DDPM:
        why = next(
            (w for part, w in FAMILIES.items() if part in str(name)), "not known here"
        )
        raise ValueError(f"{path}: a {shown(name)} is not supported: {why}")


def _check_options(config: dict[str, Any], path: Path) -> None:
    for name, value in config.items():
        if name in READ or name in SAMPLING or name.startswith("_"):
            continue
        if name in VALUES and (value is None or value in VALUES[name]):
            continue
        if name not in VALUES and (value is None or value is False):
            continue  # an option that is switched off
        raise ValueError(f"{path}: {name} = {shown(value)} is not supported")


def _prediction(config: dict[str, Any], path: Path) -> Prediction:
    # Older files say it with a flag.
    older = {None: "epsilon", True: "epsilon", False: "sample"}
    flag = config.get("predict_epsilon")
    if not isinstance(flag, bool | None):
        raise ValueError(
            f"{path}: predict_epsilon = {shown(flag)} is neither true nor false"
        )
    kind = config.get("prediction_type", older[flag])
    if not isinstance(kind, str) or kind not in PREDICTIONS:
        raise ValueError(
            f"{path}: prediction_type = {shown(kind)} is not supported; "
            f"{', '.join(PREDICTIONS)}"
        )
    return PREDICTIONS[kind]


def _steps(config: dict[str, Any], path: Path) -> int:
    steps = config.get("num_train_timesteps")
    if type(steps) is not int or not 0 < steps <= MOST_LEVELS:
        raise ValueError(
            f"{path}: num_train_timesteps = {shown(steps)} is no number of levels "
            f"from 1 to {MOST_LEVELS:,}"
        )
    return steps


def _schedule(config: dict[str, Any], steps: int, path: Path) -> Schedule:
    betas = config.get("trained_betas")
    if betas is not None:
        plain = isinstance(betas, list) and all(type(b) in (int, float) for b in betas)
        if not plain or len(betas) != steps:
            raise ValueError(f"{path}: trained_betas are no {steps} numbers")
        return from_beta(np.asarray(betas, np.float64))
    name = config.get("beta_schedule")
    if name == "squaredcos_cap_v2":
        return cosine(steps)
    if name not in ("linear", "scaled_linear"):
        raise ValueError(
            f"{path}: beta_schedule = {shown(name)} is not supported; squaredcos_cap_v2, "
            "linear, scaled_linear or trained_betas"
        )
    if missing := [key for key in ("beta_start", "beta_end") if key not in config]:
        raise ValueError(f"{path} lacks {missing[0]}")
    first, last = (number(config, key, path) for key in ("beta_start", "beta_end"))
    if name == "linear":
        return from_beta(np.linspace(first, last, steps))
    return from_beta(np.linspace(first**0.5, last**0.5, steps) ** 2)


def save_scheduler(folder: str | Path, schedule: Schedule, prediction: Prediction) -> None:
    """Writes ``scheduler_config.json`` of a DDPM scheduler with these very betas.

    Raises:
        ValueError: if a scheduler has no word for the prediction.
    """
    names = {ours: theirs for theirs, ours in PREDICTIONS.items()}
    if prediction not in names:
        raise ValueError(f"a scheduler cannot say {prediction!r}; {', '.join(names)}")
    config = {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": schedule.num_steps,
        "beta_schedule": "trained_betas",
        "trained_betas": np.asarray(schedule.beta, np.float64).tolist(),
        "prediction_type": names[prediction],
        "clip_sample": False,
    }
    path = Path(folder) / "scheduler_config.json"
    files.write_text(path, json.dumps(config, indent=2) + "\n")
