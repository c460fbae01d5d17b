"""Locomotion with diffusion policies: actions under an observation, two of each plan."""

import jax
import numpy as np
import pytest

from configs import locomotion as configs
from diffreward import data as d
from experiments.locomotion import data, rollouts, rows
from experiments.locomotion import run as locomotion
from experiments.locomotion.check import check


@pytest.fixture(autouse=True)
def _optax_promotion():
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


@pytest.fixture(scope="module")
def config():
    config = configs.get_config("halfcheetah,smoke,policy")
    with config.unlocked():
        config.evaluation.rows = ("unsteered", "score", "expert")
        for stage in ("base", "expert", "rewards", "paper_rewards"):
            config[stage].steps, config[stage].checkpoint_every = 20, 20
            config[stage].steps_per_dispatch, config[stage].devices = 10, 1
    return config


@pytest.fixture(scope="module")
def prepared(config, tmp_path_factory):
    """A run without models, and episodes of chance."""
    run = locomotion.build(config, tmp_path_factory.mktemp("policy"))
    task, rng, count = run.task, np.random.default_rng(0), 60
    numbers = lambda width: rng.uniform(-1, 1, (count, width)).astype(np.float32)
    episodes = d.Episodes.from_arrays(
        numbers(task.obs_dim), numbers(task.act_dim), timeouts=np.arange(count) % 20 == 19
    )
    splits = dict.fromkeys(d.SPLITS, episodes)
    normaliser = d.fit_gaussian(d.transitions(episodes))
    return run, data.Prepared(normaliser, splits, splits)


def test_its_samples_are_actions_under_one_observation(config, prepared):
    run, found = prepared
    acts = run.task.act_dim
    assert bool(run.denoiser.pinned[:, acts:].all())
    assert not bool(run.denoiser.pinned[:, :acts].any())
    for windows in data.both_windows(run, found, "val").values():
        x = np.asarray(d.draw(windows, jax.random.key(0), 8, config.model.horizon)["x_0"])
        assert np.ptp(x[:, :, acts:], axis=1).max() == 0
        assert np.ptp(x[:, :, :acts], axis=1).min() > 0


def test_two_actions_of_a_plan_are_executed(config, prepared):
    run, found = prepared
    params = run.denoiser.init(jax.random.key(1))
    method = rows.Method(lambda p, scale, t_stop: run.denoiser.eps_fn(p), [params], 1.0)
    act = rollouts.make_act(run, found.normaliser, method)
    keys = jax.vmap(jax.random.key)(np.arange(3, dtype=np.uint32))
    observations = np.ones((3, run.task.obs_dim), np.float32)
    shape = act(params, 1.0, 0, keys, np.int32(0), observations).shape
    assert shape == (3, config.evaluation.num_actions, run.task.act_dim) == (3, 2, 6)


@pytest.mark.slow
def test_a_policy_is_trained_steered_and_played(config, tmp_path):
    result = locomotion.main(config, tmp_path)
    assert {"unsteered", "score", "expert"} <= result["methods"].keys()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("rewards.source", "models", "a policy's plans have none"),
        ("evaluation.num_actions", 5, "num_actions=5 is more than the model.horizon=4"),
        ("evaluation.num_actions", 0, "num_actions"),
    ],
)
def test_what_no_policy_could_do_is_refused(config, key, value, message):
    other = config.copy_and_resolve_references()
    with other.unlocked():
        other.update_from_flattened_dict({key: value})
    with pytest.raises(ValueError, match=message):
        check(other)


def test_plans_of_diffusers_are_as_before():
    for task in ("halfcheetah", "hopper"):
        config = configs.get_config(f"{task},smoke")
        assert not config.model.policy
        assert config.evaluation.num_actions == 1
