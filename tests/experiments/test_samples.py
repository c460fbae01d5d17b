"""Windows drawn from models: which model, from whose states."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import locomotion as configs
from diffreward import data as d
from diffreward.learn import SOURCES, reward_task
from experiments import samples
from experiments.build import build_denoiser, build_reward

ACT, OBS, HORIZON = 2, 3, 4


@pytest.fixture(autouse=True)
def _flax_promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def model():
    config = configs.get_config("hopper,smoke").model
    with config.unlocked():
        config.conservative = False
    return build_denoiser(config, ACT, OBS)


def windows(value):
    episodes = d.Episodes.from_arrays(
        np.full((30, OBS), value, np.float32) + np.arange(30, dtype=np.float32)[:, None],
        np.zeros((30, ACT), np.float32),
        timeouts=np.arange(30) == 29,
    )
    dim = ACT + OBS
    normaliser = d.Normaliser(np.zeros(dim, np.float32), np.ones(dim, np.float32))
    return d.make_windows(episodes, normaliser, horizon=8, pad=True)


def constant(model, value):
    """Parameters of a denoiser that always predicts the same clean sample."""
    x, t = jnp.zeros(model.shape), jnp.zeros((), jnp.int32)
    params = model.network.init(jax.random.key(0), x, t)
    params = jax.tree.map(jnp.zeros_like, params)
    params["params"]["head"]["bias"] += value
    return params


def crossed(model, count=32, seed=0):
    experts = jax.tree.map(
        lambda *x: jnp.stack(x), constant(model, 70.0), constant(model, 80.0)
    )
    sets = {
        "base": windows(100.0),
        "expert": d.stack_windows([windows(200.0), windows(300.0)]),
    }
    return samples.crossed_samples(model, constant(model, 60.0), experts, sets, count, seed)


def test_each_model_goes_on_from_states_of_the_other(model):
    found = crossed(model)
    for name, states, values in (
        ("base_at_expert", (200.0, 300.0), (60.0, 60.0)),
        ("expert_at_base", (100.0, 100.0), (70.0, 80.0)),
    ):
        w = found[name]
        assert w.count.tolist() == [32, 32]
        for i, (state, value) in enumerate(zip(states, values, strict=True)):
            own = w._replace(offset=np.asarray(w.offset[i]), count=np.asarray(w.count[i]))
            x = np.asarray(d.draw(own, jax.random.key(1), 64, model.shape[0])["x_0"])
            first = x[:, 0, ACT:]
            assert np.all((first >= state) & (first < state + 30))
            assert len(np.unique(first[:, 0])) > 5
            np.testing.assert_allclose(x[:, 1:], value, rtol=1e-5)
            np.testing.assert_allclose(x[:, 0, :ACT], value, rtol=1e-5)


def test_samples_depend_on_the_seed_alone(model):
    one, again, other = crossed(model), crossed(model), crossed(model, seed=1)
    for name in one:
        np.testing.assert_array_equal(one[name].rows, again[name].rows)
        assert not np.array_equal(one[name].rows, other[name].rows)


def test_a_batch_has_equal_parts_of_every_set(model):
    section = configs.get_config("hopper,smoke").rewards
    reward = build_reward(section, model)
    for source, names in SOURCES.items():
        task = reward_task(model, reward, source, 6 * len(names))
        data = {name: windows(1000.0 * (1 + i)) for i, name in enumerate(names)}
        x = task.draw(data, jax.random.key(0))["x_0"]
        kinds = np.asarray(x[:, 0, ACT]) // 1000
        assert np.unique(kinds, return_counts=True)[1].tolist() == [6] * len(names)
