"""Many point masses in one maze as one vector environment for an RL library."""

from typing import Any

import numpy as np
from gymnasium.spaces import Box
from stable_baselines3.common.vec_env import (  # pyright: ignore[reportMissingImports]
    VecEnv,
)

from diffreward import data as d
from diffreward.steer import wrappers
from experiments.maze2d.build import ACT, OBS
from experiments.rl.pay import Pay


class MazeVecEnv(VecEnv):
    """Agents start at rest anywhere and have a fixed number of steps, no end before.

    Observations are normalised as the models know them. The true reward of an episode
    (steps within reach of the goal) is ``info["true_return"]``, whatever is paid.
    """

    def __init__(
        self,
        maze: d.Maze,
        goal: np.ndarray,
        normaliser: d.Normaliser,
        pay: Pay,
        *,
        num_envs: int,
        frame_skip: int,
        episode_steps: int,
        window: int,
        seed: int | list[int],
        stagger: bool = False,
    ):
        """Compiles the maze.

        Args:
            maze: the maze.
            goal: in metres.
            normaliser: of ``[action, observation]``.
            pay: reward of every step.
            num_envs: agents.
            frame_skip: physics steps (of 10 ms) per step.
            episode_steps: length of an episode.
            window: steps the history goes back.
            seed: of the starts.
            stagger: lets the first episodes end at different times, so that a batch of
                steps holds all phases of an episode.
        """
        box = lambda size, limit: Box(-limit, limit, (size,), np.float32)
        super().__init__(num_envs, box(OBS, np.inf), box(ACT, 1.0))
        self.maze, self.goal, self.pay = maze, np.asarray(goal), pay
        self.normaliser = d.Normaliser(normaliser.shift[ACT:], normaliser.scale[ACT:])
        self.frame_skip, self.episode_steps = frame_skip, episode_steps
        self.physics = d.make_physics(maze)
        self.rng = np.random.default_rng(seed)
        self.empty = wrappers.empty_history(num_envs, window, ACT + OBS)
        self.actions = np.zeros((num_envs, ACT))
        self.stagger = stagger

    def reset(self) -> np.ndarray:
        """Starts all episodes anew."""
        self.state = self.starts()
        self.history = self.empty
        self.true_return = np.zeros(self.num_envs)
        limit = self.episode_steps if self.stagger else 1
        self.time = self.rng.integers(limit, size=self.num_envs)
        return self.observation()

    def starts(self) -> np.ndarray:
        """Resting states at free places."""
        state = np.zeros((self.num_envs, OBS))
        state[:, :2] = d.sample_free(self.maze, self.rng, self.num_envs)
        return state

    def observation(self) -> np.ndarray:
        """Normalised states."""
        return d.normalise(self.normaliser, self.state.astype(np.float32))

    def step_async(self, actions: np.ndarray) -> None:
        """Notes the actions."""
        self.actions = np.clip(actions, -1.0, 1.0)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict]]:
        """Moves every agent; those at their time limit start anew."""
        rows = np.concatenate([self.actions, self.state], axis=1)
        self.history = wrappers.push(self.history, rows)
        self.state = d.step(self.physics, self.state, self.actions, self.frame_skip)
        true = d.true_reward(self.state, self.goal)
        reward = self.pay(self.history, true).astype(np.float32)
        self.true_return += true
        self.time += 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        over = self.time >= self.episode_steps
        if over.any():
            last = self.observation()
            for i in np.flatnonzero(over):
                infos[i] = {
                    "TimeLimit.truncated": True,
                    "terminal_observation": last[i],
                    "true_return": float(self.true_return[i]),
                }
            self.state = np.where(over[:, None], self.starts(), self.state)
            self.history = wrappers.forget(self.history, over)
            self.true_return[over] = 0
            self.time[over] = 0
        return self.observation(), reward, over, infos

    def close(self) -> None:
        """Nothing to release."""

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """No wrapper is in use."""
        del wrapper_class, indices
        return [False] * self.num_envs

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The one attribute, once per agent."""
        del indices
        return [getattr(self, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Sets the attribute for all agents."""
        del indices
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *args: Any, **kwargs: Any) -> list[Any]:
        """Agents have no methods of their own."""
        raise NotImplementedError(f"MazeVecEnv has no {method_name} per agent")
