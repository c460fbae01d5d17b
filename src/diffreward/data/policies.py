"""Policies as files: small networks that act, without the library that trained them."""

import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from safetensors.numpy import load, save

from diffreward.files import reading, write_bytes

_LOG_STD_RANGE = (-20.0, 2.0)


class SquashedGaussianPolicy(NamedTuple):
    """tanh(mean + std * noise) of a ReLU network: the actor of SAC (Haarnoja et al., 2018).

    Actions lie in [-1, 1], as those of the locomotion tasks do.
    """

    hidden: tuple[tuple[np.ndarray, np.ndarray], ...]
    """(kernel, bias) per hidden layer; kernels are (in, out)."""
    mean: tuple[np.ndarray, np.ndarray]
    log_std: tuple[np.ndarray, np.ndarray]

    @property
    def obs_dim(self) -> int:
        """Numbers per observation."""
        return self.hidden[0][0].shape[0]

    @property
    def act_dim(self) -> int:
        """Numbers per action."""
        return self.mean[0].shape[1]

    def sample(
        self,
        observations: Float[np.ndarray, "batch obs"],
        rng: np.random.Generator,
    ) -> Float[np.ndarray, "batch act"]:
        """Draws one action per observation."""
        h = np.asarray(observations, np.float32)
        for kernel, bias in self.hidden:
            h = np.maximum(h @ kernel + bias, 0)
        mean = h @ self.mean[0] + self.mean[1]
        log_std = np.clip(h @ self.log_std[0] + self.log_std[1], *_LOG_STD_RANGE)
        noise = rng.standard_normal(mean.shape, np.float32)
        return np.tanh(mean + np.exp(log_std) * noise)


def save_policy(
    path: str | os.PathLike[str], policy: SquashedGaussianPolicy, about: dict[str, str]
) -> None:
    """Writes a policy in half precision, with what is to be known about it."""
    layers = {f"hidden_{i}": layer for i, layer in enumerate(policy.hidden)}
    layers |= {"mean": policy.mean, "log_std": policy.log_std}
    tensors = {
        f"{name}.{part}": np.ascontiguousarray(array, np.float16)
        for name, layer in layers.items()
        for part, array in zip(("kernel", "bias"), layer, strict=True)
    }
    write_bytes(Path(path), save(tensors, metadata=about))


def load_policy(
    path: str | os.PathLike[str],
) -> tuple[SquashedGaussianPolicy, dict[str, str]]:
    """Reads a policy and what was written about it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or not a policy.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such policy")
    with reading(path) as file:
        tensors = {k: v.astype(np.float32) for k, v in load(file.data).items()}
        size = int.from_bytes(file.data[:8], "little")
        about = json.loads(file.data[8 : 8 + size]).get("__metadata__", {})

    def layer(name: str) -> tuple[np.ndarray, np.ndarray]:
        try:
            return tensors[f"{name}.kernel"], tensors[f"{name}.bias"]
        except KeyError as error:
            raise ValueError(f"{path}: not a policy: {error} is missing") from None

    depth = sum(name.startswith("hidden_") and name.endswith(".kernel") for name in tensors)
    hidden = tuple(layer(f"hidden_{i}") for i in range(depth))
    policy = SquashedGaussianPolicy(hidden, layer("mean"), layer("log_std"))
    if not _fits(policy):
        sizes = [
            part.shape for pair in (*hidden, policy.mean, policy.log_std) for part in pair
        ]
        raise ValueError(f"{path}: not a policy: its layers do not fit together: {sizes}")
    wrong = [name for name, array in tensors.items() if not np.isfinite(array).all()]
    if wrong:
        raise ValueError(f"{path}: {wrong[0]} holds NaN or infinity; the file is damaged")
    return policy, about


def _fits(policy: SquashedGaussianPolicy) -> bool:
    """Whether every layer takes what the one before it gives."""
    chain = (*policy.hidden, policy.mean)
    plain = all(
        kernel.ndim == 2 and bias.shape == kernel.shape[1:]
        for kernel, bias in (*chain, policy.log_std)
    )
    if not policy.hidden or not plain:
        return False
    joined = all(
        before[0].shape[1] == after[0].shape[0]
        for before, after in zip(chain, chain[1:], strict=False)
    )
    return joined and policy.mean[0].shape == policy.log_std[0].shape
