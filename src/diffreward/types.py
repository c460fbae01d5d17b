"""Shared array aliases and the protocols that connect the packages.

Everything here is written for **one** sample; ``jax.vmap`` adds the batch at the call
site. A trajectory is ``horizon`` steps of ``dim`` numbers, ordered
``[action, observation]`` as in Diffuser and the paper's code.
"""

from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, Key, Real

AnyArray: TypeAlias = Array | np.ndarray
"""On a device or on the host: what functions of batches take."""

Traj: TypeAlias = Float[Array, "horizon dim"]
"""One trajectory, clean (``x_0``) or noised (``x_t``)."""

Sample: TypeAlias = Float[Array, "..."]
"""One sample of any shape: a trajectory, or an image latent."""

Mask: TypeAlias = Bool[Array, "..."]
"""One flag per entry of a sample."""

Scalar: TypeAlias = Float[Array, ""]
"""One number: a loss, or a reward."""

Step: TypeAlias = Int[Array, ""]
"""Diffusion index ``t`` in ``[0, num_steps)``; 0 is the least noisy level."""

Time: TypeAlias = Real[Array, ""]
"""What a network embeds: a level, or a time between two levels."""

PRNGKey: TypeAlias = Key[Array, ""]
"""One typed key of ``jax.random.key``."""

Metrics: TypeAlias = dict[str, Array]
"""Named numbers of a step, as they go into its record."""

Params: TypeAlias = Any
"""A pytree of arrays."""


@runtime_checkable
class EpsFn(Protocol):
    """Noise prediction of a diffusion model for one noised sample."""

    def __call__(self, x_t: Array, t: Array, /) -> Array:
        """Returns the predicted noise, shaped like ``x_t``."""
        ...


@runtime_checkable
class RewardFn(Protocol):
    """Reward of one noised sample, in the units of its objective or extractor."""

    def __call__(self, x_t: Array, t: Array, /) -> Array:
        """Returns a scalar."""
        ...
