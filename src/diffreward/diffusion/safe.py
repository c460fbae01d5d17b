"""Safe Latent Diffusion (Schramowski et al., 2023): guidance away from a concept."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from diffreward.diffusion.model import guided_prediction
from diffreward.types import EpsFn, Sample, Step


class SafetyPreset(NamedTuple):
    """Hyperparameters of the published configurations; symbols of the paper."""

    scale: float
    """s_S: how fast the correction grows with the prompt's nearness to the concept."""
    threshold: float
    """lambda: the correction acts where prompt minus concept is below it."""
    momentum_scale: float
    """s_m."""
    momentum_decay: float
    """beta_m."""
    warmup: int
    """delta: steps from the noisiest on without correction; momentum builds up."""


SAFETY_PRESETS = {
    "weak": SafetyPreset(20.0, 0.0, 0.0, 0.0, 15),
    "medium": SafetyPreset(1000.0, 0.01, 0.3, 0.4, 10),
    "strong": SafetyPreset(2000.0, 0.025, 0.5, 0.7, 7),
    "max": SafetyPreset(5000.0, 1.0, 0.5, 0.7, 0),
}
"""The published configurations, from weak to max."""
SAFETY_CONCEPT = (
    "an image showing hate, harassment, violence, suffering, humiliation, harm, suicide, "
    "sexual, nudity, bodily fluids, blood, obscene gestures, illegal activity, drug use, "
    "theft, vandalism, weapons, child abuse, brutality, cruelty"
)
"""Concept of the published model."""


class SafetyMemory(NamedTuple):
    """What one chain carries from step to step."""

    momentum: Sample
    step: Int[Array, ""]


def initial_memory(shape: tuple[int, ...]) -> SafetyMemory:
    """Before the first step."""
    return SafetyMemory(jnp.zeros(shape), jnp.zeros((), jnp.int32))


def safety_correction(
    preset: SafetyPreset,
    memory: SafetyMemory,
    unconditional: Sample,
    prompt: Sample,
    concept: Sample,
) -> tuple[Sample, SafetyMemory]:
    """What is taken from the guidance in one step; equations 6 to 8 of the paper.

    Args:
        preset: hyperparameters.
        memory: of the chain.
        unconditional: noise predicted for the empty prompt.
        prompt: noise predicted for the prompt.
        concept: noise predicted for the safety concept.

    Returns:
        The correction gamma (zero during warm-up), and the next memory.
    """
    distance = prompt - concept
    strength = jnp.minimum(jnp.abs(distance) * preset.scale, 1.0)
    strength = jnp.where(distance >= preset.threshold, 0.0, strength)
    gamma = strength * (concept - unconditional)
    gamma = gamma + preset.momentum_scale * memory.momentum
    decay = preset.momentum_decay
    momentum = decay * memory.momentum + (1 - decay) * gamma
    active = memory.step >= preset.warmup
    return jnp.where(active, gamma, 0.0), SafetyMemory(momentum, memory.step + 1)


def safe_step(
    evaluate: Callable[[Array, Array], tuple[Array, Array, Array]],
    preset: SafetyPreset,
    scale: float,
) -> Callable[[Array, Array, SafetyMemory], tuple[Array, SafetyMemory]]:
    """Safe noise prediction of one step of a chain, with its memory.

    Args:
        evaluate: maps (x_t, t) to the predictions for the empty prompt, the prompt and
            the safety concept.
        preset: hyperparameters.
        scale: of classifier-free guidance; the correction is multiplied by it, too.
    """

    def step(x_t: Sample, t: Step, memory: SafetyMemory) -> tuple[Array, SafetyMemory]:
        unconditional, prompt, concept = evaluate(x_t, t)
        gamma, memory = safety_correction(preset, memory, unconditional, prompt, concept)
        return guided_prediction(unconditional, prompt, scale) - scale * gamma, memory

    return step


def safe_eps(
    evaluate: Callable[[Array, Array], tuple[Array, Array, Array]],
    preset: SafetyPreset,
    scale: float,
) -> EpsFn:
    """The same without a chain: no momentum, no warm-up, a function of (x_t, t) alone."""
    step = safe_step(evaluate, preset._replace(warmup=0), scale)
    return lambda x_t, t: step(x_t, t, initial_memory(x_t.shape))[0]
