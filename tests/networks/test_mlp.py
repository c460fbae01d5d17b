import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.networks import (
    DifferenceOfSquares,
    InnerProductReward,
    ScalarReward,
    SingleStepRewardMLP,
    TrajectoryMLP,
    ValueFunction,
    WindowReward,
    split_windows,
)
from tests.networks.reference import random_params

TRUNK = TrajectoryMLP(width=16, depth=2)
REWARDS = {
    "scalar": ScalarReward(TRUNK),
    "inner": InnerProductReward(TRUNK),
    "squares": DifferenceOfSquares(TrajectoryMLP(width=16, depth=2, out_dim=4)),
    "windows": WindowReward(InnerProductReward(TRUNK), 4),
    "value": ValueFunction(dim_mults=(16,)),
    "paper_windows": WindowReward(SingleStepRewardMLP((8, 8)), 4),
}


@pytest.mark.parametrize(("time_width", "hidden"), [(0, 256), (24, 24)])
def test_default_network_against_numpy(key, time_width, hidden):
    x, t = jax.random.normal(key, (5, 3)), jnp.int32(6)
    module = TrajectoryMLP(time_width=time_width)
    params = random_params(module, x, t)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params["params"])
    assert p["time"]["kernel"].shape == (32, hidden)
    dense = lambda name, a: a @ p[name]["kernel"] + p[name]["bias"]
    silu = lambda a: a / (1 + np.exp(-a))

    def norm(name, a):
        normed = (a - a.mean()) / np.sqrt(a.var() + 1e-6)
        return normed * p[name]["scale"] + p[name]["bias"]

    frequencies = 10000.0 ** (-np.arange(16) / 15)
    emb = np.concatenate([np.sin(6 * frequencies), np.cos(6 * frequencies)])
    film = dense("film", silu(dense("time", emb))).reshape(7, 256)
    h = dense("stem", np.asarray(x, np.float64).reshape(-1))
    for i in range(3):
        u = norm(f"norm_{i}", h) * (1 + film[1 + 2 * i]) + film[2 + 2 * i]
        h = h + dense(f"out_{i}", silu(dense(f"in_{i}", u)))
    expected = dense("head", norm("norm", h) * (1 + film[0])).reshape(5, 3)
    np.testing.assert_allclose(
        jax.jit(module.apply)(params, x, t), expected, rtol=1e-4, atol=1e-4
    )


def test_rewards_are_what_they_say(key):
    x, t = jax.random.normal(key, (8, 3)), jnp.int32(2)

    def trunk_output(module):
        params = random_params(module, x, t)
        trunk = {"params": params["params"]["net"]}
        out = np.asarray(jax.jit(module.net.apply)(trunk, x, t), np.float64)
        return jax.jit(module.apply)(params, x, t), out, params["params"]

    value, out, _ = trunk_output(REWARDS["inner"])
    np.testing.assert_allclose(value, np.sum(np.asarray(x) * out), rtol=1e-5)
    value, out, _ = trunk_output(REWARDS["squares"])
    expected = np.sum(out[:, :2] ** 2) - np.sum(out[:, 2:] ** 2)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    value, out, p = trunk_output(REWARDS["scalar"])
    features = (out * np.tanh(np.log1p(np.exp(out)))).reshape(-1)
    expected = features @ np.asarray(p["head"]["kernel"])[:, 0] + p["head"]["bias"][0]
    np.testing.assert_allclose(value, expected, atol=1e-5)


def test_difference_of_squares_needs_two_halves(key):
    module = DifferenceOfSquares(TrajectoryMLP(width=16, depth=1))
    with pytest.raises(ValueError, match="even out_dim, got 3"):
        jax.eval_shape(module.init, key, jnp.zeros((4, 3)), jnp.int32(0))


def test_windows_are_contiguous_or_strided_as_published():
    x = jnp.arange(6.0)[:, None]
    np.testing.assert_array_equal(split_windows(x, 3)[..., 0], [[0, 1, 2], [3, 4, 5]])
    strided = split_windows(x, 3, strided=True)[..., 0]
    np.testing.assert_array_equal(strided, [[0, 2, 4], [1, 3, 5]])
    for window in (1, 6):  # where the two coincide
        np.testing.assert_array_equal(
            split_windows(x, window), split_windows(x, window, strided=True)
        )
    for window in (4, 0, -2, 12):
        with pytest.raises(
            ValueError, match=f"horizon 6 is not a multiple of window {window}"
        ):
            split_windows(x, window)


@pytest.mark.parametrize("strided", [False, True])
def test_window_reward_is_the_mean_over_windows(key, strided):
    x, t = jax.random.normal(key, (8, 3)), jnp.int32(2)
    net = SingleStepRewardMLP((8,), window=4)
    module = WindowReward(net, 4, strided=strided)
    params = random_params(module, x, t)
    inner = {"params": params["params"]["net"]}
    parts = [x[0::2], x[1::2]] if strided else [x[:4], x[4:]]
    values = [jax.jit(net.apply)(inner, part, t) for part in parts]
    np.testing.assert_allclose(
        jax.jit(module.apply)(params, x, t), np.mean(np.asarray(values)), rtol=1e-5
    )
    alone = jax.jit(module.apply)(params, parts[0], t)
    np.testing.assert_allclose(alone, values[0], rtol=1e-5)


def gradient_of_alignment(module, key):
    x_key, d_key = jax.random.split(key)
    x, t = jax.random.normal(x_key, (8, 3)), jnp.int32(2)
    target = jax.random.normal(d_key, x.shape)
    params = random_params(module, x, t)

    def loss(params):
        return jnp.sum(jnp.square(jax.grad(module.apply, 1)(params, x, t) - target))

    gradient = jax.jit(jax.grad(loss))(params)
    named = jax.tree_util.tree_flatten_with_path(gradient)[0]
    return {jax.tree_util.keystr(path): np.abs(g).max() for path, g in named}


@pytest.mark.parametrize("name", REWARDS)
def test_smooth_rewards_train_their_time_path(key, name):
    sizes = gradient_of_alignment(REWARDS[name], key)
    time = {path: size for path, size in sizes.items() if "'time'" in path}
    assert time
    assert all(size > 0 for size in time.values()), time


def test_leaky_relu_never_trains_biases_and_time(key):
    net = SingleStepRewardMLP((8, 8), activation="leaky_relu")
    sizes = gradient_of_alignment(WindowReward(net, 4), key)
    for path, size in sizes.items():
        frozen = "'bias'" in path or "'time'" in path or "'level'" in path
        assert (size == 0) == frozen, (path, size)
