"""Forward processes of foreign models, and the one number that relates them: log-SNR.

Every Gaussian diffusion noises as ``x_u = alpha(u) x_0 + sigma(u) eps`` in a time ``u`` of
its own. Divided by alpha, two processes at equal log-SNR = log(alpha^2 / sigma^2) show the
same thing, ``x_0`` with the same amount of noise (Kingma et al. 2021, section 5.1), so a
model of any process can be asked at the levels of any schedule.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from diffreward.diffusion.schedule import Schedule

Curve = Callable[[np.ndarray], np.ndarray]


class NoiseProcess(NamedTuple):
    """``x_u = alpha(u) x_0 + sigma(u) eps``; NumPy functions in float64."""

    name: str
    alpha: Curve
    sigma: Curve
    least: float
    """Time of the least noise the model knows."""
    most: float
    """Time of the most noise."""
    integer: bool = False
    """The model takes integer times only."""
    slopes: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None
    """Time derivatives of alpha and sigma, for models that predict a velocity."""
    schedule: Schedule | None = None
    """Of a discrete chain."""

    def log_snr(self, time: np.ndarray) -> np.ndarray:
        """Logarithm of alpha^2 / sigma^2 at ``time``."""
        with np.errstate(divide="ignore"):
            return 2 * (np.log(self.alpha(time)) - np.log(self.sigma(time)))


def discrete(schedule: Schedule, *, integer: bool = True) -> NoiseProcess:
    """The chain of a discrete schedule, its times the indices 0 to T-1.

    Args:
        schedule: of the model.
        integer: the model takes whole times only; asked between two levels, its
            predictions at both are interpolated, at the cost of a second evaluation.
            False asks it once at a fractional time, whose log-SNR is interpolated: right
            for networks with a smooth embedding of time.
    """
    snr = np.asarray(schedule.snr, np.float64)
    index = np.arange(snr.size)
    log_snr = lambda u: np.interp(u, index, np.log(snr))
    return NoiseProcess(
        name=f"discrete chain of {snr.size} levels",
        alpha=lambda u: np.sqrt(expit(log_snr(u))),
        sigma=lambda u: np.sqrt(expit(-log_snr(u))),
        least=0.0,
        most=float(snr.size - 1),
        integer=integer,
        schedule=schedule,
    )


def variance_preserving(
    *, beta_min: float = 0.1, beta_max: float = 20.0, least: float = 1e-5
) -> NoiseProcess:
    """The VP-SDE with linear beta on [0, 1]; Song et al. (2021), equation 32."""
    log_alpha = lambda u: -0.25 * u**2 * (beta_max - beta_min) - 0.5 * u * beta_min
    return NoiseProcess(
        name="continuous variance-preserving process",
        alpha=lambda u: np.exp(log_alpha(u)),
        sigma=lambda u: np.sqrt(-np.expm1(2 * log_alpha(u))),
        least=least,
        most=1.0,
    )


def variance_preserving_cosine(
    *, offset: float = 0.008, least: float = 1e-4, most: float = 0.9946
) -> NoiseProcess:
    """Cosine schedule in continuous time (Nichol & Dhariwal, 2021).

    ``most`` keeps away from time 1, where no signal is left at all.
    """
    angle = lambda u: (u + offset) / (1 + offset) * np.pi / 2
    start = np.cos(angle(np.zeros(())))
    return NoiseProcess(
        name="continuous cosine process",
        alpha=lambda u: np.cos(angle(u)) / start,
        sigma=lambda u: np.sqrt(1 - np.square(np.cos(angle(u)) / start)),
        least=least,
        most=most,
    )


def variance_exploding(
    *, sigma_min: float = 0.002, sigma_max: float = 80.0
) -> NoiseProcess:
    """``x = x_0 + sigma eps`` with time sigma itself, as in EDM (Karras et al., 2022)."""
    return NoiseProcess(
        name=f"variance-exploding process, sigma in [{sigma_min:g}, {sigma_max:g}]",
        alpha=np.ones_like,
        sigma=lambda u: u,
        least=sigma_min,
        most=sigma_max,
        slopes=lambda u: (np.zeros_like(u), np.ones_like(u)),
    )


def rectified_flow(*, data_at: int = 0, margin: float = 1e-3) -> NoiseProcess:
    """Straight lines between data and noise (Liu et al. 2023; Lipman et al. 2023).

    Args:
        data_at: time of the data, 0 (``x = (1 - u) x_0 + u eps``) or 1 (reversed).
        margin: distance kept from both ends, where one of the two is not seen at all.

    Raises:
        ValueError: if ``data_at`` is neither 0 nor 1.
    """
    if data_at not in (0, 1):
        raise ValueError(f"data_at is the time of the data, 0 or 1; got {data_at}")
    noise = lambda u: u if data_at == 0 else 1 - u
    sign = 1.0 if data_at == 0 else -1.0
    ends = (margin, 1 - margin)
    return NoiseProcess(
        name=f"rectified flow with data at time {data_at}",
        alpha=lambda u: 1 - noise(u),
        sigma=noise,
        least=ends[data_at],
        most=ends[1 - data_at],
        slopes=lambda u: (-sign * np.ones_like(u), sign * np.ones_like(u)),
    )


SLACK = 1e-4
"""Relative difference of log-SNR that rounding of a schedule explains."""


def covers(process: NoiseProcess, log_snr: Float[np.ndarray, " levels"]) -> bool:
    """Whether the process reaches all of the given log-SNRs."""
    return not _outside(process, log_snr).any()


def match_times(
    process: NoiseProcess, log_snr: Float[np.ndarray, " levels"]
) -> Float[np.ndarray, " levels"]:
    """Times at which ``process`` has the given log-SNRs, by bisection in float64.

    Raises:
        ValueError: if the process does not reach one of them.
    """
    wanted = np.asarray(log_snr, np.float64)
    outside = _outside(process, wanted)
    if outside.any():
        ends = _ends(process)
        t = int(np.argmax(outside))
        raise ValueError(
            f"level {t} of the pair has log-SNR {wanted[t]:.4g}, but the "
            f"{process.name} covers {ends[1]:.4g} to {ends[0]:.4g}; give the pair a "
            "schedule in the range of both models"
        )
    clean = np.full_like(wanted, process.least)
    noisy = np.full_like(wanted, process.most)
    for _ in range(100):
        middle = (clean + noisy) / 2
        less_noise = process.log_snr(middle) > wanted
        clean = np.where(less_noise, middle, clean)
        noisy = np.where(less_noise, noisy, middle)
    times = (clean + noisy) / 2
    # A discrete level met up to rounding is meant: its own time gives its own numbers.
    whole = np.round(times)
    same = np.abs(process.log_snr(whole) - wanted) <= SLACK * (1 + np.abs(wanted))
    return np.where(same & (np.abs(times - whole) < 1e-2), whole, times)


def _ends(process: NoiseProcess) -> np.ndarray:
    """Highest and lowest log-SNR."""
    return process.log_snr(np.array([process.least, process.most], np.float64))


def _outside(process: NoiseProcess, wanted: np.ndarray) -> np.ndarray:
    high, low = _ends(process)
    slack = SLACK * (1 + np.abs(wanted))
    return (wanted > high + slack) | (wanted < low - slack)
