"""D4RL's locomotion tasks on gymnasium's simulators, and data of policies that act there.

Scores are D4RL's: 0 is its random policy, 100 its expert (Fu et al., 2020).
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from jaxtyping import Float

from diffreward.data.episodes import Episodes
from diffreward.data.policies import SquashedGaussianPolicy
from diffreward.data.simulator import load_mujoco, quiet_models
from diffreward.names import choose

Stream = dict[str, np.ndarray]
"""Flat arrays over all steps, in D4RL's names."""


_URL = "https://rail.eecs.berkeley.edu/datasets/offline_rl/gym_mujoco_v2/"
_KINDS = ("random", "medium", "expert", "medium-expert", "medium-replay", "full-replay")


class LocomotionTask(NamedTuple):
    """One task: its simulator, its shapes and the returns that mean 0 and 100."""

    env_id: str
    """Gymnasium's name, after ``MODULE:`` if another package registers it."""
    obs_dim: int
    act_dim: int
    random_return: float
    expert_return: float
    d4rl: Mapping[str, str] = MappingProxyType({})
    """Addresses of its datasets in D4RL by their names; none by default."""


def _d4rl(name: str) -> dict[str, str]:
    """Addresses of the datasets of one of D4RL's locomotion tasks."""
    file = lambda kind: f"{name}_{kind.replace('-', '_')}-v2.hdf5"
    return {f"{name}-{kind}-v2": _URL + file(kind) for kind in _KINDS}


LOCOMOTION = {
    name: LocomotionTask(*about, d4rl=_d4rl(name))
    for name, about in {
        "halfcheetah": ("HalfCheetah-v5", 17, 6, -280.178953, 12135.0),
        "hopper": ("Hopper-v5", 11, 3, -20.272305, 3234.3),
        "walker2d": ("Walker2d-v5", 17, 6, 1.629008, 4592.3),
    }.items()
}
"""The tasks by name: simulator, dimensions, and D4RL's returns of random and expert.

A further entry is a further task, everywhere: an environment of MuJoCo whose observations
are vectors and whose actions lie in [-1, 1].
"""


def make_locomotion(name: str) -> gym.Env:
    """The simulator of a task, which ends episodes after its own limit of steps.

    Raises:
        ValueError: for an unknown task, or if the simulator cannot be made or has other
            shapes than the task.
    """
    task = LOCOMOTION[choose("locomotion task", name, LOCOMOTION)]
    load_mujoco()
    module, colon, _ = task.env_id.rpartition(":")
    package = module.replace("_", "-") if colon else "'gymnasium[mujoco]'"
    try:
        with quiet_models():
            env = gym.make(task.env_id)
    except (gym.error.Error, ImportError) as error:
        raise ValueError(
            f"{name}: the simulator {task.env_id} is missing ({error}); "
            f"pip install {package}"
        ) from error
    found = env.observation_space.shape, env.action_space.shape
    if found != ((task.obs_dim,), (task.act_dim,)):
        env.close()
        raise ValueError(
            f"{name}: {task.env_id} has observations of shape {found[0]} and actions of "
            f"shape {found[1]}, but the entry of the task says {task.obs_dim} and "
            f"{task.act_dim}; correct the entry"
        )
    return env


def normalised_score(
    name: str, returns: Float[np.ndarray, "*episodes"]
) -> Float[np.ndarray, "*episodes"]:
    """D4RL's score of undiscounted returns; its experts score 100."""
    task = LOCOMOTION[name]
    span = task.expert_return - task.random_return
    return 100.0 * (np.asarray(returns, np.float64) - task.random_return) / span


class Recorder:
    """Collects the transitions of one episode after another in D4RL's layout."""

    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {
            key: []
            for key in (
                "observations",
                "actions",
                "next_observations",
                "rewards",
                "terminals",
                "timeouts",
            )
        }

    def __len__(self) -> int:
        return len(self._columns["rewards"])

    def add(self, **row: Any) -> None:
        """Adds one transition; every column is due."""
        for key, column in self._columns.items():
            column.append(row[key])

    def stream(self) -> Stream:
        """All transitions as arrays."""
        flags = ("terminals", "timeouts")
        return {
            key: np.asarray(column, bool if key in flags else np.float32)
            for key, column in self._columns.items()
        }


def episodes_of(stream: Stream) -> Episodes:
    """A stream cut into episodes."""
    return Episodes.from_arrays(
        stream["observations"],
        stream["actions"],
        rewards=stream["rewards"],
        terminals=stream["terminals"],
        timeouts=stream["timeouts"],
        source="stream",
    )


def act_in(
    name: str,
    policy: SquashedGaussianPolicy,
    *,
    seed: int | Sequence[int],
    steps: int = 0,
    episodes: int = 0,
    progress: Callable[[int], Any] = lambda rows: None,
) -> Stream:
    """Whole episodes of a policy that samples its actions.

    What comes out depends on the arguments alone.

    Args:
        name: task.
        policy: who acts.
        seed: of resets and actions.
        steps: transitions, at least.
        episodes: episodes, at least.
        progress: told the number of rows of every finished episode.

    Raises:
        ValueError: if the policy was made for other shapes.
    """
    task = LOCOMOTION[name]
    if (policy.obs_dim, policy.act_dim) != (task.obs_dim, task.act_dim):
        raise ValueError(
            f"a policy for {policy.obs_dim} observations and {policy.act_dim} actions "
            f"cannot act in {name}, which has {task.obs_dim} and {task.act_dim}"
        )
    env = make_locomotion(name)
    rng = np.random.default_rng(seed)
    recorder, done = Recorder(), 0
    try:
        while len(recorder) < steps or done < episodes:
            before = len(recorder)
            observation, _ = env.reset(seed=int(rng.integers(2**31)))
            over = False
            while not over:
                action = policy.sample(observation[None], rng)[0]
                following, reward, terminal, timeout, _ = env.step(action)
                recorder.add(
                    observations=observation,
                    actions=action,
                    next_observations=following,
                    rewards=reward,
                    terminals=terminal,
                    timeouts=timeout and not terminal,
                )
                observation, over = following, terminal or timeout
            progress(len(recorder) - before)
            done += 1
    finally:
        env.close()
    return recorder.stream()


def body_segments(
    name: str, states: Float[np.ndarray, "frames state"]
) -> Float[np.ndarray, "frames segments 2 2"]:
    """Where the limbs are: ends (x, z) in metres of every capsule of the body.

    Args:
        name: task.
        states: qpos and qvel, as rollouts record them.
    """
    mujoco = load_mujoco()
    env = make_locomotion(name)
    model, data = env.unwrapped.model, env.unwrapped.data  # pyright: ignore
    capsules = np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_CAPSULE)
    half = model.geom_size[capsules, 1]
    frames = []
    for state in states:
        data.qpos[:], data.qvel[:] = np.split(state, [model.nq])
        mujoco.mj_kinematics(model, data)
        axis = data.geom_xmat[capsules].reshape(-1, 3, 3)[:, :, 2] * half[:, None]
        centre = data.geom_xpos[capsules]
        frames.append(np.stack([centre - axis, centre + axis], 1)[:, :, [0, 2]])
    env.close()
    return np.asarray(frames)
