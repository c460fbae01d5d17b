"""Rewards paid while acting are those of the recorded trajectory."""

import gymnasium as gym
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from diffreward.data import Normaliser
from diffreward.steer.stepwise import make_step_reward
from diffreward.steer.wrappers import ENV_REWARD, RewardVectorWrapper, RewardWrapper

WINDOW = 3
NORMALISER = Normaliser(
    np.array([0.2, -0.3, 0.1], np.float32), np.array([1.5, 0.7, 2.0], np.float32)
)


def value(x):
    place = jnp.arange(1.0, x.size + 1).reshape(x.shape)
    return jnp.sum(jnp.sin(x) * place)


REFERENCE = make_step_reward(value, NORMALISER, WINDOW)


class Drift(gym.Env):
    """Two numbers that drift with the action; ends after ``length`` steps."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, length=5):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.normal(size=2).astype(np.float32)
        self.steps = 0
        return self.x, {}

    def step(self, action):
        self.x = (0.9 * self.x + np.asarray(action)[0]).astype(np.float32)
        self.steps += 1
        over = self.steps >= self.length
        return self.x, float(self.x.sum()), over and self.length % 2 == 0, over, {"k": 1}


def test_one_environment_pays_what_its_record_says():
    env = RewardWrapper(Drift(), value, NORMALISER, WINDOW)
    rng = np.random.default_rng(0)
    for episode in range(2):
        x, _ = env.reset(seed=episode)
        seen, acts, paid = [], [], []
        over = False
        while not over:
            action = rng.uniform(-1, 1, 1).astype(np.float32)
            seen.append(x)
            acts.append(action)
            x, reward, terminal, timeout, info = env.step(action)
            over = terminal or timeout
            paid.append(reward)
            assert info[ENV_REWARD] == pytest.approx(float(x.sum()))
            assert info["k"] == 1
        expected = REFERENCE(jnp.asarray(np.stack(seen)), jnp.asarray(np.stack(acts)))
        np.testing.assert_allclose(paid, expected, rtol=1e-4, atol=1e-5)
        assert paid[: WINDOW - 1] == [0.0] * (WINDOW - 1)


def test_the_own_reward_can_be_added_and_dict_observations_read():
    class Dicts(gym.ObservationWrapper):
        observation_space = gym.spaces.Dict({"x": Drift.observation_space})

        def observation(self, observation):
            return {"x": observation}

    read = lambda o: o["x"]
    plain = RewardWrapper(Drift(), value, NORMALISER, WINDOW)
    both = RewardWrapper(
        Dicts(Drift()), value, NORMALISER, WINDOW, env_weight=2.0, read=read
    )
    plain.reset(seed=3)
    both.reset(seed=3)
    for _ in range(4):
        action = np.array([0.3], np.float32)
        _, a, _, _, _ = plain.step(action)
        _, b, _, _, info = both.step(action)
        assert b == pytest.approx(a + 2 * info[ENV_REWARD], rel=1e-5)


LENGTHS = (4, 6, 9)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_vector_pays_every_episode_what_its_record_says(mode):
    makers = [lambda n=n: Drift(n) for n in LENGTHS]
    env = RewardVectorWrapper(
        SyncVectorEnv(makers, autoreset_mode=mode), value, NORMALISER, WINDOW
    )
    rng = np.random.default_rng(1)
    x, _ = env.reset(seed=5)
    x = np.array(x)
    current = [([], [], []) for _ in LENGTHS]
    finished = [[] for _ in LENGTHS]
    idle = np.zeros(3, bool)
    for _ in range(25):
        action = rng.uniform(-1, 1, (3, 1)).astype(np.float32)
        after, reward, terminal, timeout, info = env.step(action)
        assert info[ENV_REWARD].shape == (3,)
        over = terminal | timeout
        for i in range(3):
            if idle[i]:
                assert reward[i] == 0
                continue
            for column, item in zip(
                current[i], (x[i].copy(), action[i], reward[i]), strict=True
            ):
                column.append(item)
            if over[i]:
                finished[i].append(current[i])
                current[i] = ([], [], [])
        x = np.array(after)
        idle = over & (mode == AutoresetMode.NEXT_STEP)
        if mode == AutoresetMode.DISABLED and over.any():
            x = np.array(env.reset(options={"reset_mask": over})[0])
    for i, length in enumerate(LENGTHS):
        assert len(finished[i]) >= 2
        for seen, acts, paid in finished[i]:
            assert len(paid) == length
            expected = REFERENCE(jnp.asarray(np.stack(seen)), jnp.asarray(np.stack(acts)))
            np.testing.assert_allclose(paid, expected, rtol=1e-4, atol=1e-5)
