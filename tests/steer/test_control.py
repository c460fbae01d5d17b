"""Receding-horizon control against plain loops."""

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.data import Normaliser
from diffreward.diffusion import (
    Condition,
    cosine,
    pinned_observations,
    sample,
    to_eps,
)
from diffreward.steer import make_controller, roll_out

HORIZON, ACT, OBS = 3, 3, 11
SCHEDULE = cosine(6)
NORMALISER = Normaliser(
    np.linspace(-1, 1, ACT + OBS).astype(np.float32),
    np.linspace(0.5, 2, ACT + OBS).astype(np.float32),
)
PINNED = pinned_observations(HORIZON, ACT, OBS)


def eps_fn(x_t, t):
    return jnp.tanh(x_t + 0.1 * t.astype(jnp.float32)) * x_t[0, -1]


def controller(**options):
    return jax.jit(make_controller(eps_fn, SCHEDULE, NORMALISER, PINNED, ACT, **options))


def keys_of(seeds):
    return jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))


def test_actions_are_the_first_of_a_plan_from_the_observation():
    observation = np.linspace(-2, 1, OBS).astype(np.float32)
    got = controller()(keys_of([5]), jnp.int32(9), observation[None])[0, 0]
    row = np.concatenate([np.zeros(ACT, np.float32), observation])
    start = (row - NORMALISER.shift) / NORMALISER.scale
    plan = sample(
        eps_fn,
        SCHEDULE,
        jax.random.fold_in(jax.random.key(5), 9),
        (HORIZON, ACT + OBS),
        condition=Condition(PINNED, jnp.tile(start, (HORIZON, 1))),
    )
    np.testing.assert_allclose(plan[0, ACT:], start[ACT:], rtol=1e-6)
    want = plan[0, :ACT] * NORMALISER.scale[:ACT] + NORMALISER.shift[:ACT]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_a_sampler_of_ones_own_draws_the_plans_from_the_same_start():
    observation = np.linspace(-2, 1, OBS).astype(np.float32)
    seen = []

    def draw(key, shape, condition):
        seen.append(shape)
        noise = jax.random.normal(key, shape)
        return jnp.where(condition.pinned, condition.values, noise)

    got = controller(sampler=draw)(keys_of([5]), jnp.int32(9), observation[None])[0, 0]
    key = jax.random.fold_in(jax.random.key(5), 9)
    noise = jax.random.normal(key, (HORIZON, ACT + OBS))[0, :ACT]
    assert seen == [(HORIZON, ACT + OBS)]
    want = noise * NORMALISER.scale[:ACT] + NORMALISER.shift[:ACT]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_rows_do_not_see_each_other():
    observations = np.random.default_rng(0).normal(size=(4, OBS)).astype(np.float32)
    act = controller()
    together = act(keys_of([1, 2, 3, 4]), jnp.int32(0), observations)
    alone = act(keys_of([3]), jnp.int32(0), observations[2:3])
    np.testing.assert_allclose(together[2], alone[0], rtol=1e-5, atol=1e-6)
    assert not np.allclose(together[0], together[1])


def test_the_best_of_several_candidates_is_executed():
    observations = np.zeros((1, OBS), np.float32)
    rank = lambda x, t: x[0, 0]
    one = controller()(keys_of([7]), jnp.int32(0), observations)
    best = controller(rank_by=rank, num_candidates=16)(
        keys_of([7]), jnp.int32(0), observations
    )
    assert best[0, 0, 0] > one[0, 0, 0]


class Countdown(gym.Env):
    """Ends after as many steps as its seed says; rewards the first action."""

    observation_space = gym.spaces.Box(-9, 9, (OBS,))
    action_space = gym.spaces.Box(-1, 1, (ACT,))

    def reset(self, *, seed=None, options=None):
        self.left, self.state = seed % 7 + 1, np.full(OBS, seed, np.float64) / 100
        return self.state, {}

    def step(self, action):
        self.left -= 1
        self.state = self.state + 0.01 * action.sum()
        return self.state, float(action[0]), self.left == 0, False, {}


def test_rollouts_are_a_plain_loop_over_single_environments():
    seeds, act = [11, 4, 13, 20, 8], controller()
    got = roll_out(Countdown, act, seeds, threads=2)
    assert list(got.lengths) == [s % 7 + 1 for s in seeds]
    for seed, total in zip(seeds, got.returns, strict=True):
        env, want, step, over = Countdown(), 0.0, 0, False
        observation, _ = env.reset(seed=seed)
        while not over:
            action = act(keys_of([seed]), jnp.int32(step), np.float32(observation)[None])
            action = np.clip(np.asarray(action)[0, 0], -1, 1)
            observation, reward, over, _, _ = env.step(action)
            want, step = want + reward, step + 1
        assert total == pytest.approx(want, rel=1e-4, abs=1e-5)


def test_several_actions_of_a_plan_are_executed_before_the_next():
    """Also of episodes that end inside a plan; each is what it would be alone."""
    seeds, act = [11, 4, 13, 20, 8], controller(num_actions=2)
    got = roll_out(Countdown, act, seeds, threads=2)
    assert list(got.lengths) == [s % 7 + 1 for s in seeds]
    for seed, rewards in zip(seeds, got.rewards, strict=True):
        env, over, step = Countdown(), False, 0
        observation, _ = env.reset(seed=seed)
        while not over:
            key, seen = keys_of([seed]), np.float32(observation)[None]
            for action in np.asarray(act(key, jnp.int32(step), seen))[0]:
                observation, reward, over, _, _ = env.step(np.clip(action, -1, 1))
                assert rewards[step] == pytest.approx(reward, rel=1e-4, abs=1e-5)
                step += 1
                if over:
                    break
    with pytest.raises(ValueError, match="a plan has 1 to 3 that can be executed"):
        controller(num_actions=4)


def test_a_policy_is_shown_its_observation_at_every_step():
    seen = jnp.zeros((HORIZON, ACT + OBS), bool).at[:, ACT:].set(True)
    # It predicts the end of what it is shown, as every action.
    clean = lambda x_t: jnp.concatenate([x_t[:, -ACT:], x_t[:, ACT:]], axis=1)
    shown = lambda x_t, t: to_eps(SCHEDULE, "x_0", x_t, t, clean(x_t))
    act = make_controller(shown, SCHEDULE, NORMALISER, seen, ACT, num_actions=HORIZON)
    observation = np.linspace(-1, 1, OBS).astype(np.float32)
    got = jax.jit(act)(keys_of([2]), jnp.int32(0), observation[None])[0]
    row = np.concatenate([np.zeros(ACT, np.float32), observation])
    start = (row - NORMALISER.shift) / NORMALISER.scale
    want = start[-ACT:] * NORMALISER.scale[:ACT] + NORMALISER.shift[:ACT]
    np.testing.assert_allclose(got, np.tile(want, (HORIZON, 1)), rtol=1e-3, atol=1e-3)


def test_finished_episodes_leave_the_batch():
    sizes = []

    def act(keys, step, observations):
        sizes.append(len(observations))
        return np.zeros((len(observations), 1, ACT), np.float32)

    roll_out(Countdown, act, [0, 0, 0, 0, 0, 6], threads=1)
    assert sizes == [6, 1, 1, 1, 1, 1, 1]


def test_episodes_are_cut_where_asked():
    act = lambda keys, step, obs: np.full((len(obs), 1, ACT), -1.0, np.float32)
    assert list(roll_out(Countdown, act, [6], max_steps=3).lengths) == [3]
    got = roll_out(Countdown, act, [6], stop_below=-1.5)
    assert list(got.lengths) == [2]
    with pytest.raises(ValueError, match="no seeds"):
        roll_out(Countdown, act, [])


def test_states_are_recorded_from_the_simulator():
    act = lambda keys, step, obs: np.zeros((len(obs), 1, ACT), np.float32)
    got = roll_out(lambda: gym.make("Hopper-v5"), act, [0, 1], record=1, max_steps=5)
    assert len(got.states) == 1
    assert got.states[0].shape == (5, 12)
    assert got.physics_seconds > 0
