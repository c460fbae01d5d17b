"""Receding-horizon control: plan from where we stand, execute the first actions, repeat."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from diffreward.data import Normaliser, normalise, unnormalise
from diffreward.diffusion import Condition, Schedule, sample
from diffreward.types import EpsFn, Mask, PRNGKey, RewardFn

Controller = Callable[[Key[Array, " batch"], Array, Any], Any]
"""Actions (batch, steps, act) to execute from (keys, step, observations); no row sees
another."""

Sampler = Callable[[PRNGKey, tuple[int, ...], Condition], Array]
"""Draws one plan of a shape from (key, shape, what is known of it)."""


def make_controller(
    eps_fn: EpsFn,
    schedule: Schedule,
    normaliser: Normaliser,
    pinned: Mask,
    act_dim: int,
    *,
    num_actions: int = 1,
    num_evaluations: int | None = None,
    rank_by: RewardFn | None = None,
    num_candidates: int = 1,
    sampler: Sampler | None = None,
) -> Controller:
    """First actions of sampled plans that start at the observations.

    Plans are Diffuser's windows of actions and observations, or, where all observations are
    pinned, a diffusion policy's actions under the one that is known (Chi et al., 2023).

    Args:
        eps_fn: noise prediction, steered or not.
        schedule: its noise schedule.
        normaliser: of ``[action, observation]``.
        pinned: conditioned entries, (horizon, dim): the first observation, or (of a policy)
            the observations of all steps, which then are that one.
        act_dim: numbers per action.
        num_actions: of a plan that are executed before the next one is made.
        num_evaluations: fewer network evaluations by DDIM (eta 1).
        rank_by: reward that picks the best of ``num_candidates`` plans, at level 0.
        num_candidates: plans per observation.
        sampler: draws a plan in another way, such as one of weighted particles; by default
            the chain of ``eps_fn``.

    Raises:
        ValueError: if a plan has fewer actions than are to be executed.
    """
    horizon, dim = pinned.shape
    if not 1 <= num_actions <= horizon:
        raise ValueError(
            f"num_actions is {num_actions}; a plan has 1 to {horizon} that can be executed"
        )
    method = "ddpm" if num_evaluations is None else "ddim"

    def by_chain(key: Array, shape: tuple[int, ...], condition: Condition) -> Array:
        return sample(
            eps_fn,
            schedule,
            key,
            shape,
            condition=condition,
            method=method,
            num_evaluations=num_evaluations,
            eta=1.0,
        )

    def one_plan(key: Array, start: Array) -> Array:
        return (sampler or by_chain)(key, (horizon, dim), Condition(pinned, start))

    def best(reward_fn: RewardFn, key: Array, start: Array) -> Array:
        keys = jax.random.split(key, num_candidates)
        plans = jax.vmap(one_plan, (0, None))(keys, start)
        value = jax.vmap(lambda x: reward_fn(x, jnp.int32(0)))(plans)
        return plans[jnp.argmax(value)]

    def one(key: Array, step: Array, observation: Array) -> Array:
        key = jax.random.fold_in(key, step)
        row = jnp.concatenate([jnp.zeros(act_dim), observation])
        start = jnp.broadcast_to(normalise(normaliser, row), (horizon, dim))
        chosen = one_plan(key, start) if rank_by is None else best(rank_by, key, start)
        return unnormalise(normaliser, chosen)[:num_actions, :act_dim]

    return jax.vmap(one, (0, None, 0))


class Rollouts(NamedTuple):
    """What happened in every episode, and where the time went."""

    returns: Float[np.ndarray, " episodes"]
    lengths: np.ndarray
    rewards: Float[np.ndarray, "episodes max_steps"]
    """Of every step; 0 after the end."""
    states: list[np.ndarray]
    """qpos and qvel of every step, of the episodes that were recorded."""
    planner_seconds: float
    physics_seconds: float


def roll_out(
    make_env: Callable[[], gym.Env],
    controller: Controller,
    seeds: Sequence[int],
    *,
    max_steps: int = 1000,
    stop_below: float | None = None,
    record: int = 0,
    threads: int | None = None,
    progress: Callable[[int], object] = lambda steps: None,
) -> Rollouts:
    """One episode per seed, all at once; finished ones leave the network's batch.

    An episode's noise depends on its seed and step alone, so it does not matter which
    others run beside it.

    Args:
        make_env: makes one simulator.
        controller: compiled (``jax.jit``); it meets all episodes as a batch, and halves
            of that.
        seeds: of the resets and of the planner's noise.
        max_steps: steps after which an episode is cut.
        stop_below: ends an episode whose return falls below it (the published code
            stops at -50, which raises the mean of poor runs); None ends none.
        record: how many of the first episodes to record.
        threads: that step simulators; one per core by default.
        progress: told the number of steps after every round.

    Raises:
        ValueError: without seeds.
    """
    if not len(seeds):
        raise ValueError("roll_out: no seeds given")
    envs = [make_env() for _ in seeds]
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))
    returns, lengths = np.zeros(len(seeds)), np.zeros(len(seeds), int)
    rewards = np.zeros((len(seeds), max_steps), np.float32)
    states: list[list[np.ndarray]] = [[] for _ in range(min(record, len(seeds)))]
    queue: list[np.ndarray] = []  # planned actions of all episodes, (episodes, act) each
    planner = physics = 0.0
    with ThreadPoolExecutor(threads) as pool:
        observations = np.stack(
            list(
                pool.map(
                    lambda pair: pair[0].reset(seed=int(pair[1]))[0],
                    zip(envs, seeds, strict=True),
                )
            )
        ).astype(np.float32)
        running, size = np.arange(len(seeds)), len(seeds)
        for step in range(max_steps):
            began = time.perf_counter()
            if not queue:
                # Repeated rows fill the batch up, so that few sizes are ever compiled.
                while (half := -(-size // 2)) >= len(running) and half < size:
                    size = half
                rows = np.resize(running, size)
                chunk = controller(keys[rows], jnp.int32(step), observations[rows])
                chunk = np.asarray(chunk)[: len(running)]
                every = np.zeros((len(seeds), *chunk.shape[1:]), chunk.dtype)
                every[running] = chunk
                queue = list(every.swapaxes(0, 1))
            actions = np.clip(queue.pop(0)[running], -1.0, 1.0)
            planned = time.perf_counter()
            outcomes = list(pool.map(lambda i, a: envs[i].step(a), running, actions))
            still = []
            for i, (observation, reward, terminal, timeout, _) in zip(
                running, outcomes, strict=True
            ):
                observations[i] = observation
                returns[i] += float(reward)
                rewards[i, step] = reward
                lengths[i] += 1
                if i < len(states):
                    data = envs[i].unwrapped.data  # pyright: ignore
                    states[i].append(np.concatenate([data.qpos, data.qvel]))
                lost = stop_below is not None and returns[i] < stop_below
                if not (terminal or timeout or lost):
                    still.append(i)
            planner += planned - began
            physics += time.perf_counter() - planned
            progress(len(running))
            running = np.asarray(still, int)
            if not len(running):
                break
    for env in envs:
        env.close()
    films = [np.array(s) for s in states]
    return Rollouts(returns, lengths, rewards, films, planner, physics)
