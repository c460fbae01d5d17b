"""Gymnasium wrappers that pay an extracted reward; the true one stays in ``info``."""

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import jax
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from jaxtyping import Bool, Float, Int

from diffreward.data import Normaliser, normalise
from diffreward.steer.stepwise import ValueFn

ENV_REWARD = "env_reward"
"""Key of the environment's own reward in ``info``."""


class History(NamedTuple):
    """The last rows ``[action, observation]`` of several episodes, newest last."""

    rows: Float[np.ndarray, "envs window dim"]
    count: Int[np.ndarray, " envs"]
    """Rows since the episode began, the forgotten ones included."""

    @property
    def complete(self) -> Bool[np.ndarray, " envs"]:
        """Where a whole window has been seen."""
        return self.count >= self.rows.shape[1]


def empty_history(envs: int, window: int, dim: int) -> History:
    """A history of nothing."""
    return History(np.zeros((envs, window, dim), np.float32), np.zeros(envs, np.int64))


def push(history: History, rows: Float[np.ndarray, "envs dim"]) -> History:
    """Appends one row per environment."""
    rows = rows.astype(np.float32)[:, None]
    return History(np.concatenate([history.rows[:, 1:], rows], 1), history.count + 1)


def forget(history: History, which: Bool[np.ndarray, " envs"]) -> History:
    """Starts new episodes where ``which`` is True."""
    rows = np.where(which[:, None, None], np.float32(0), history.rows)
    return History(rows, np.where(which, 0, history.count))


def make_payment(
    value_fn: ValueFn, normaliser: Normaliser, window: int
) -> Callable[[History], Float[np.ndarray, " envs"]]:
    """Reward of the newest step of every history, as ``make_step_reward`` has it.

    Args:
        value_fn: value of one clean, normalised window.
        normaliser: of ``[action, observation]``.
        window: steps per window.
    """
    values = jax.jit(jax.vmap(lambda rows: value_fn(normalise(normaliser, rows)) / window))

    def payment(history: History) -> np.ndarray:
        return np.where(history.complete, np.asarray(values(history.rows)), 0.0)

    return payment


class RewardWrapper(gym.Wrapper):
    """Pays an extracted reward for every step of one environment.

    The reward of a step is the value of the window that ends with it, over the window's
    length; the first ``window - 1`` steps of an episode earn nothing.
    """

    def __init__(
        self,
        env: gym.Env,
        value_fn: ValueFn,
        normaliser: Normaliser,
        window: int,
        *,
        env_weight: float = 0.0,
        read: Callable[[Any], np.ndarray] = np.asarray,
    ):
        """Wraps an environment.

        Args:
            env: environment with box actions.
            value_fn: value of one clean, normalised window.
            normaliser: of ``[action, observation]``.
            window: steps per window.
            env_weight: of the environment's own reward, added; 0 replaces it.
            read: numbers of an observation as the models know them, for dict
                observations.
        """
        super().__init__(env)
        self._payment = make_payment(value_fn, normaliser, window)
        self._env_weight, self._read = env_weight, read
        self._empty = empty_history(1, window, normaliser.shift.shape[0])
        self._history = self._empty
        self._seen = np.zeros(0)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Resets the environment and forgets the episode."""
        observation, info = self.env.reset(**kwargs)
        self._history, self._seen = self._empty, self._read(observation)
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Steps the environment; its own reward is ``info["env_reward"]``."""
        row = np.concatenate([np.asarray(action).reshape(-1), self._seen])
        observation, env_reward, terminal, timeout, info = self.env.step(action)
        self._history = push(self._history, row[None])
        self._seen = self._read(observation)
        reward = float(self._payment(self._history)[0])
        reward += self._env_weight * float(env_reward)
        info = {**info, ENV_REWARD: float(env_reward)}
        return observation, reward, terminal, timeout, info


class RewardVectorWrapper(VectorWrapper):
    """The same for a vector of environments, in every autoreset mode of Gymnasium."""

    def __init__(
        self,
        env: VectorEnv,
        value_fn: ValueFn,
        normaliser: Normaliser,
        window: int,
        *,
        env_weight: float = 0.0,
        read: Callable[[Any], np.ndarray] = np.asarray,
    ):
        """Wraps a vector environment; arguments as of :class:`RewardWrapper`."""
        super().__init__(env)
        self._payment = make_payment(value_fn, normaliser, window)
        self._env_weight, self._read = env_weight, read
        self._history = empty_history(env.num_envs, window, normaliser.shift.shape[0])
        self._seen = np.zeros((env.num_envs, 0))
        self._over = np.zeros(env.num_envs, bool)
        mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self._mode = AutoresetMode(mode)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Resets all environments, or those of ``options["reset_mask"]``."""
        which = (kwargs.get("options") or {}).get("reset_mask")
        which = np.ones(self.num_envs, bool) if which is None else np.asarray(which, bool)
        observation, info = self.env.reset(**kwargs)
        self._begin(which)
        self._seen = self._read(observation)
        return observation, info

    def step(self, actions: Any) -> tuple[Any, np.ndarray, Any, Any, dict[str, Any]]:
        """Steps all environments; their own rewards are ``info["env_reward"]``."""
        actions = np.asarray(actions).reshape(self.num_envs, -1)
        rows = np.concatenate([actions, self._seen], axis=1)
        observation, env_reward, terminal, timeout, info = self.env.step(actions)
        # In this mode the step after an end only resets, and its action is ignored.
        idle = self._over & (self._mode == AutoresetMode.NEXT_STEP)
        self._history = push(self._history, rows)
        reward = self._payment(self._history) + self._env_weight * env_reward
        reward = np.where(idle, 0.0, reward)
        self._begin(idle)
        self._over = terminal | timeout
        if self._mode == AutoresetMode.SAME_STEP:
            self._begin(self._over)
        self._seen = self._read(observation)
        info = {**info, ENV_REWARD: np.asarray(env_reward)}
        return observation, reward, terminal, timeout, info

    def _begin(self, which: np.ndarray) -> None:
        self._history = forget(self._history, which)
        self._over = self._over & ~which
