"""Policies as files, and data of policies that act in the simulators."""

import gymnasium as gym
import numpy as np
import pytest

from diffreward.data import (
    LOCOMOTION,
    SquashedGaussianPolicy,
    act_in,
    episodes_of,
    load_policy,
    make_locomotion,
    save_policy,
)


def policy(obs_dim=11, act_dim=3, width=16, seed=0):
    rng = np.random.default_rng(seed)
    layer = lambda a, b: (
        rng.normal(size=(a, b)).astype(np.float16).astype(np.float32) * 0.5,
        rng.normal(size=b).astype(np.float16).astype(np.float32),
    )
    hidden = (layer(obs_dim, width), layer(width, width))
    return SquashedGaussianPolicy(hidden, layer(width, act_dim), layer(width, act_dim))


@pytest.mark.parametrize("name", LOCOMOTION)
def test_shapes_are_those_of_the_simulator(name):
    env = make_locomotion(name)
    task = LOCOMOTION[name]
    assert env.observation_space.shape == (task.obs_dim,)
    assert env.action_space.shape == (task.act_dim,)
    np.testing.assert_array_equal(env.action_space.low, -1)
    np.testing.assert_array_equal(env.action_space.high, 1)
    env.close()


def test_samples_have_the_moments_of_the_squashed_gaussian():
    p = policy()
    observation = np.random.default_rng(1).normal(size=11).astype(np.float32)
    draws = p.sample(np.tile(observation, (20_000, 1)), np.random.default_rng(2))
    h = observation
    for kernel, bias in p.hidden:
        h = np.maximum(h @ kernel + bias, 0)
    mean = h @ p.mean[0] + p.mean[1]
    std = np.exp(np.clip(h @ p.log_std[0] + p.log_std[1], -20, 2))
    normal = np.random.default_rng(3).normal(size=(200_000, 3))
    want = np.tanh(mean + std * normal)
    np.testing.assert_allclose(draws.mean(0), want.mean(0), atol=0.03)
    np.testing.assert_allclose(draws.std(0), want.std(0), atol=0.03)


def test_a_policy_survives_its_file(tmp_path):
    path = tmp_path / "p.safetensors"
    save_policy(path, policy(), {"score": "12.5"})
    again, about = load_policy(path)
    assert about == {"score": "12.5"}
    observations = np.random.default_rng(0).normal(size=(5, 11))
    draw = lambda p: p.sample(observations, np.random.default_rng(1))
    np.testing.assert_allclose(draw(again), draw(policy()), atol=5e-3)


def test_damaged_policies_are_refused(tmp_path):
    path = tmp_path / "p.safetensors"
    save_policy(path, policy(), {})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot be read: SafetensorError"):
        load_policy(path)
    p = policy()
    save_policy(path, p._replace(mean=(p.mean[0][:3], p.mean[1])), {})
    with pytest.raises(ValueError, match="do not fit together"):
        load_policy(path)
    with pytest.raises(FileNotFoundError, match="no such policy"):
        load_policy(tmp_path / "none")


@pytest.mark.parametrize("part", ["kernel", "bias"])
@pytest.mark.parametrize("shape", [(5,), (5, 5, 1), (16, 5)])
@pytest.mark.parametrize("layer", ["hidden", "mean", "log_std"])
def test_layers_of_any_wrong_shape_are_refused(tmp_path, layer, part, shape):
    p, wrong = policy(), np.zeros(shape, np.float32)
    kernel, bias = p.hidden[1] if layer == "hidden" else getattr(p, layer)
    pair = (wrong, bias) if part == "kernel" else (kernel, wrong)
    changed = (p.hidden[0], pair) if layer == "hidden" else pair
    save_policy(tmp_path / "p", p._replace(**{layer: changed}), {})
    with pytest.raises(ValueError, match="/p: not a policy: its layers do not fit"):
        load_policy(tmp_path / "p")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(tmp_path, value):
    p = policy()
    p.mean[0][2, 1] = value
    save_policy(tmp_path / "p", p, {})
    with pytest.raises(ValueError, match=r"/p: mean\.kernel holds NaN or infinity"):
        load_policy(tmp_path / "p")


def test_data_is_what_a_plain_loop_sees_and_ends_are_told_apart():
    stream = act_in("hopper", policy(), seed=7, steps=60)
    again = act_in("hopper", policy(), seed=7, steps=60)
    for key, column in stream.items():
        np.testing.assert_array_equal(column, again[key])
    episodes = episodes_of(stream)
    assert stream["terminals"].any()
    assert not (stream["terminals"] & stream["timeouts"]).any()
    inside = ~(stream["terminals"] | stream["timeouts"])[:-1]
    np.testing.assert_array_equal(
        stream["next_observations"][:-1][inside], stream["observations"][1:][inside]
    )
    rng = np.random.default_rng(7)
    env = gym.make("Hopper-v5")
    observation, _ = env.reset(seed=int(rng.integers(2**31)))
    for row in range(episodes.lengths[0]):
        np.testing.assert_allclose(stream["observations"][row], observation, rtol=1e-6)
        action = policy().sample(observation[None], rng)[0]
        observation, reward, *_ = env.step(action)
        assert stream["rewards"][row] == pytest.approx(reward, rel=1e-5)
    env.close()


def test_a_policy_for_another_task_is_refused():
    with pytest.raises(
        ValueError, match="11 observations and 3 actions cannot act in half"
    ):
        act_in("halfcheetah", policy(), seed=0, steps=1)
    with pytest.raises(ValueError, match="unknown locomotion task 'ant'"):
        make_locomotion("ant")
