import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.diffusion import (
    SAFETY_PRESETS,
    initial_memory,
    safe_eps,
    safe_step,
)

SHAPE, SCALE, STEPS = (4, 4, 3), 7.5, 20


def predictions():
    """Three predictions per step, near one another as those of one model are."""
    rng = np.random.default_rng(0)
    free = rng.normal(size=(STEPS, *SHAPE))
    return [
        np.asarray(free + size * rng.normal(size=free.shape), np.float32)
        for size in (0.0, 0.1, 0.05)
    ]


def evaluate_at(arrays):
    return lambda x_t, t: tuple(jnp.asarray(a)[t] for a in arrays)


def ours(preset):
    step = safe_step(evaluate_at(predictions()), SAFETY_PRESETS[preset], SCALE)
    memory, found = initial_memory(SHAPE), []
    for i in range(STEPS):
        eps, memory = step(jnp.zeros(SHAPE), jnp.int32(i), memory)
        found.append(np.asarray(eps))
    return np.stack(found)


def by_formula(preset):
    """Section 5.1 of the method's description, in float64, warm-up added."""
    s_S, threshold, s_m, beta, warmup = SAFETY_PRESETS[preset]
    nu, found = 0.0, []
    for i, (u, p, c) in enumerate(zip(*predictions(), strict=True)):
        u, p, c = (np.asarray(a, np.float64) for a in (u, p, c))
        mu = np.where(p - c < threshold, np.minimum(1, s_S * np.abs(p - c)), 0)
        gamma = mu * (c - u) + s_m * nu
        nu = beta * nu + (1 - beta) * gamma
        found.append(u + SCALE * (p - u - (gamma if i >= warmup else 0)))
    return np.stack(found)


@pytest.mark.parametrize("preset", sorted(SAFETY_PRESETS))
def test_steps_follow_the_published_formula(preset):
    np.testing.assert_allclose(ours(preset), by_formula(preset), rtol=1e-4, atol=1e-4)


@pytest.mark.parity
@pytest.mark.parametrize("preset", sorted(SAFETY_PRESETS))
def test_steps_equal_the_published_pipeline(preset):
    torch = pytest.importorskip("torch")
    safe = pytest.importorskip("diffusers.pipelines.deprecated.stable_diffusion_safe")
    theirs = getattr(safe.SafetyConfig, preset.upper())
    pipeline = safe.StableDiffusionPipelineSafe
    momentum, found = None, []
    for i, (u, p, c) in enumerate(zip(*map(torch.tensor, predictions()), strict=True)):
        guidance, momentum = pipeline.perform_safety_guidance(
            None, True, momentum, p - u, [p, u, c], i, **theirs
        )
        found.append((u + SCALE * guidance).numpy())
    np.testing.assert_allclose(ours(preset), np.stack(found), rtol=1e-5, atol=1e-5)


def test_presets_differ_and_push_away_from_the_concept():
    found = {name: ours(name) for name in SAFETY_PRESETS}
    free, prompt, concept = predictions()
    plain = free + SCALE * (prompt - free)
    changes = {name: np.abs(x - plain).mean() for name, x in found.items()}
    assert changes["weak"] < changes["medium"] < changes["strong"] < changes["max"]
    # The correction is along minus (concept - free).
    along = ((found["max"][0] - plain[0]) * (concept[0] - free[0])).sum()
    assert along < 0


def test_without_a_chain_there_is_neither_momentum_nor_warm_up():
    eps = safe_eps(evaluate_at(predictions()), SAFETY_PRESETS["strong"], SCALE)
    first = safe_step(
        evaluate_at(predictions()), SAFETY_PRESETS["strong"]._replace(warmup=0), SCALE
    )
    for i in (0, 3):
        expected, _ = first(jnp.zeros(SHAPE), jnp.int32(i), initial_memory(SHAPE))
        found = jax.jit(eps)(jnp.zeros(SHAPE), jnp.int32(i))
        np.testing.assert_allclose(found, expected, rtol=1e-6)
