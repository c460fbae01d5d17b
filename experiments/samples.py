"""Windows drawn from two models, instead of data or beside them."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import Array

from diffreward import data as d
from diffreward.learn import Denoiser
from diffreward.steer import plan
from diffreward.types import AnyArray, Params

CHUNK = 1024
"""Samples drawn at once; bounds the memory."""


Draw = Callable[[Params, Array, AnyArray], Array]
"""Windows that go on from known entries, of (parameters, key, known)."""


def drawers(model: Denoiser) -> tuple[Draw, Draw]:
    """Sampling of the base and of the expert; one program if they are one network."""

    def drawer(model: Denoiser) -> Draw:
        def draw(params: Params, key: Array, known: Any) -> Array:
            return plan(model.eps_fn(params), model.schedule, key, known, model.pinned)

        return jax.jit(draw)

    of_base = drawer(model)
    return of_base, of_base if model.expert is None else drawer(model.of_expert)


def model_samples(
    model: Denoiser,
    base: Params,
    experts: Params,
    observations: np.ndarray,
    normaliser: d.Normaliser,
    act_dim: int,
    seed: int,
) -> dict[str, d.Windows]:
    """Windows drawn from the two models alone (the paper's algorithm 2).

    Half start at the given observations, half go on from a state inside one of the first
    half, so that states in the middle of a run are conditions too.

    Args:
        model: both denoisers.
        base: parameters of the base.
        experts: parameters of the experts, stacked.
        observations: first observations (count, obs_dim), in the units of the task.
        normaliser: of ``[action, observation]``.
        act_dim: numbers per action.
        seed: of samples and choices.

    Raises:
        ValueError: if the models are conditioned on more than the first state.
    """
    if bool(model.pinned[1:].any()):
        raise ValueError(
            "source='models' starts from first states only, but model.pinned also holds "
            "later steps; set model.pinned=(0,)"
        )
    horizon, dim = model.shape
    rng = np.random.default_rng(seed)
    states = np.zeros((len(observations), dim), np.float32)
    states[:, act_dim:] = observations
    states = d.normalise(normaliser, states)
    key = jax.random.key(seed)

    of_base, of_expert = drawers(model)

    def bank(draw: Draw, params: Params, member: int) -> np.ndarray:
        known = lambda states: np.repeat(states[:, None], horizon, 1)
        first_key, next_key = jax.random.split(jax.random.fold_in(key, member))
        first = np.asarray(draw(params, first_key, known(states)))
        inside = first[np.arange(len(first)), rng.integers(1, horizon, len(first))]
        second = np.asarray(draw(params, next_key, known(inside)))
        return np.concatenate([first, second])

    members = jax.tree.leaves(experts)[0].shape[0]
    zero = -np.asarray(normaliser.shift / normaliser.scale)[:act_dim]
    as_windows = lambda x: sample_windows(x, zero)
    expert_banks = [
        as_windows(bank(of_expert, jax.tree.map(lambda x, i=i: x[i], experts), i + 1))
        for i in range(members)
    ]
    return {
        "base": as_windows(bank(of_base, base, 0)),
        "expert": d.stack_windows(expert_banks),
    }


def crossed_samples(
    model: Denoiser,
    base: Params,
    experts: Params,
    sets: Mapping[str, d.Windows],
    count: int,
    seed: int,
) -> dict[str, d.Windows]:
    """What each model makes of the other's states: where steering goes.

    A base that is steered well ends, from its own states, where the expert would: in
    windows that neither dataset holds. Noised, these are the states the guided sampler
    passes.

    Args:
        model: both denoisers.
        base: parameters of the base.
        experts: parameters of the experts, stacked.
        sets: windows of ``base``, and stacked of the ``expert``.
        count: samples of each model (per expert).
        seed: of samples and choices.

    Returns:
        Windows ``base_at_expert`` and ``expert_at_base``, both stacked over experts.
    """
    horizon, key = model.shape[0], jax.random.key(seed)

    of_base, of_expert = drawers(model)

    def complete(draw: Draw, params: Params, windows: d.Windows, key: Array) -> np.ndarray:
        key, choice = jax.random.split(key)
        known = jax.jit(lambda w, k: d.draw(w, k, count, horizon)["x_0"])(windows, choice)
        parts = [
            np.asarray(draw(params, jax.random.fold_in(key, n), known[n : n + CHUNK]))
            for n in range(0, count, CHUNK)
        ]
        return np.concatenate(parts)

    banks: dict[str, list[d.Windows]] = {"base_at_expert": [], "expert_at_base": []}
    for i in range(jax.tree.leaves(experts)[0].shape[0]):
        expert = jax.tree.map(lambda x, i=i: x[i], experts)
        own = sets["expert"]._replace(
            offset=sets["expert"].offset[i], count=sets["expert"].count[i]
        )
        keys = jax.random.split(jax.random.fold_in(key, i))
        for name, draw, params, windows, own_key in (
            ("base_at_expert", of_base, base, own, keys[0]),
            ("expert_at_base", of_expert, expert, sets["base"], keys[1]),
        ):
            x_0 = complete(draw, params, windows, own_key)
            banks[name].append(sample_windows(x_0, np.asarray(windows.pad)))
    return {name: d.stack_windows(bank) for name, bank in banks.items()}


def sample_windows(x: np.ndarray, zero_action: np.ndarray) -> d.Windows:
    """Whole samples (N, horizon, dim) as the windows of a dataset."""
    count, horizon, dim = x.shape
    start = np.arange(count, dtype=np.int32) * horizon
    number = lambda n: np.asarray(n, np.int32)
    return d.Windows(
        rows=x.reshape(-1, dim),
        start=start,
        last=start + number(horizon - 1),
        pad=zero_action.astype(np.float32),
        stride=number(1),
        offset=number(0),
        count=number(count),
    )
