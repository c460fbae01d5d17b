"""Noise schedules of discrete variance-preserving diffusion."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import expit

MOST_SIGNAL = 0.05
"""Signal-to-noise ratio of the last level up to which it counts as pure noise. Chains in
use end below: DDPM's at 4e-5, Stable Diffusion's at 5e-3, a cosine at less."""


class Schedule(NamedTuple):
    """Coefficients of q(x_t | x_0) and of its posterior, one entry per level.

    Every array is computed in float64 and rounded once, so that differences of nearly
    equal numbers (``1 - alpha_bar`` at low noise) keep all their digits.
    """

    beta: Float[Array, " num_steps"]
    alpha_bar: Float[Array, " num_steps"]
    sqrt_alpha_bar: Float[Array, " num_steps"]
    sigma: Float[Array, " num_steps"]
    """Noise level sqrt(1 - alpha_bar)."""
    snr: Float[Array, " num_steps"]
    """Signal-to-noise ratio alpha_bar / (1 - alpha_bar)."""
    posterior_x_0: Float[Array, " num_steps"]
    """Weight of x_0 in the mean of q(x_{t-1} | x_t, x_0)."""
    posterior_x_t: Float[Array, " num_steps"]
    """Weight of x_t in the mean of q(x_{t-1} | x_t, x_0)."""
    posterior_variance: Float[Array, " num_steps"]

    @property
    def num_steps(self) -> int:
        """Length T of the chain."""
        return self.beta.shape[0]

    @property
    def signal_left(self) -> float | None:
        """Signal-to-noise ratio of the last level, where the chain stops before noise.

        None where it does not, or where the levels are traced and nobody can tell.
        """
        if isinstance(self.snr, jax.core.Tracer):
            return None
        left = float(np.asarray(self.snr)[-1])
        return left if left > MOST_SIGNAL else None


def from_beta(beta: np.ndarray) -> Schedule:
    """Derives every coefficient from the variances ``beta`` of the forward steps.

    Raises:
        ValueError: if ``beta`` is not a vector of numbers in (0, 1).
    """
    beta = np.asarray(beta, np.float64)
    if beta.ndim != 1 or beta.size == 0 or not np.all((beta > 0) & (beta < 1)):
        raise ValueError(
            f"beta must be a non-empty vector in (0, 1), got shape {beta.shape} "
            f"with range [{beta.min(initial=1):g}, {beta.max(initial=0):g}]"
        )
    alpha = 1 - beta
    alpha_bar = np.cumprod(alpha)
    alpha_bar_prev = np.concatenate([[1.0], alpha_bar[:-1]])
    noise = 1 - alpha_bar
    columns = (
        beta,
        alpha_bar,
        np.sqrt(alpha_bar),
        np.sqrt(noise),
        alpha_bar / noise,
        beta * np.sqrt(alpha_bar_prev) / noise,
        (1 - alpha_bar_prev) * np.sqrt(alpha) / noise,
        beta * (1 - alpha_bar_prev) / noise,
    )
    return Schedule(*(jnp.asarray(c, jnp.float32) for c in columns))


def from_log_snr(log_snr: np.ndarray) -> Schedule:
    """The schedule whose levels have the given, strictly falling log-SNRs.

    Raises:
        ValueError: if they do not fall strictly.
    """
    log_snr = np.asarray(log_snr, np.float64)
    if log_snr.ndim != 1 or log_snr.size == 0 or np.any(np.diff(log_snr) >= 0):
        raise ValueError(f"log_snr must be a strictly falling vector, got {log_snr}")
    alpha_bar = expit(log_snr)
    return from_beta(1 - alpha_bar / np.concatenate([[1.0], alpha_bar[:-1]]))


def cosine(num_steps: int, *, offset: float = 0.008, max_beta: float = 0.999) -> Schedule:
    """Cosine schedule of Nichol & Dhariwal (2021), equation 17."""
    grid = np.arange(num_steps + 1) / num_steps
    f = np.cos((grid + offset) / (1 + offset) * np.pi / 2) ** 2
    return from_beta(np.clip(1 - f[1:] / f[:-1], 1e-12, max_beta))


def linear(num_steps: int, *, first: float = 1e-4, last: float = 0.02) -> Schedule:
    """Linear schedule of Ho et al. (2020), its ends rescaled from 1000 steps.

    Chains of other lengths whose betas are ``np.linspace(first, last, num_steps)``, as
    most checkpoints have them, are :func:`linear_betas`.
    """
    factor = 1000 / num_steps
    ends = np.clip(np.array([first, last]) * factor, 1e-12, 0.999)
    return from_beta(np.linspace(ends[0], ends[1], num_steps))


def linear_betas(num_steps: int, *, first: float = 1e-4, last: float = 0.02) -> Schedule:
    """Betas evenly spaced from ``first`` to ``last``, whatever the number of steps.

    With the ends of Ho et al. (2020), chains shorter than about 500 steps stop before
    noise: 50 steps end at a signal-to-noise ratio of 1.5.
    """
    return from_beta(np.linspace(first, last, num_steps))
