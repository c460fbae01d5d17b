"""One expert and one reward for all goals, each told the goal."""

from functools import partial

import jax
import numpy as np
import pytest

from configs import maze2d as configs
from diffreward import measures
from experiments.maze2d import data, evaluate, maps
from experiments.maze2d import run as maze2d
from experiments.maze2d.build import ACT, GOAL, OBS, Trained, build
from experiments.maze2d.check import check
from experiments.rl.check import check as check_rl


@pytest.fixture(scope="module")
def config():
    config = configs.get_config("umaze,smoke,conditioned")
    with config.unlocked():
        for stage in ("base", "experts", "rewards", "window_rewards"):
            config[stage].steps, config[stage].batch_size = 300, 64
        config.evaluation.plans, config.evaluation.windows = 32, 32
        config.evaluation.scales = (1.0,)
        for stage in ("base", "experts", "rewards", "window_rewards"):
            config[stage].devices = 1
    return config


@pytest.fixture(scope="module", autouse=True)
def _optax_promotion():
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    """A run, its data, and the models of whole plans."""
    run = build(config, tmp_path_factory.mktemp("conditioned"))
    data.make_data(run)
    prepared = data.prepare(run)
    base = maze2d.train_base(run, prepared)
    experts = maze2d.train_experts(run, prepared, base)
    rewards = maze2d.train_rewards(run, prepared, base, experts, "rewards")
    return run, prepared, Trained(base, experts, rewards, rewards)


def test_the_switch_keeps_the_number_of_samples():
    eight, one = (configs.get_config(f"umaze{s}") for s in ("", ",conditioned"))
    for stage in ("experts", "rewards", "window_rewards"):
        samples = lambda c, stage=stage: c[stage].steps * c[stage].batch_size
        assert samples(one) == 8 * samples(eight)


def test_a_reward_told_another_goal_prefers_the_base(trained):
    """Swapped goals turn the ranking around: the condition is no decoration."""
    run, prepared, every = trained
    models = every.of_goal(run.config, 1, 0)
    measured = evaluate.compile_measurements(run).values
    values = partial(measured, models.base, models.expert, models.reward)
    for own in range(2):
        for told, low, high in ((own, 0.8, 1.0), (1 - own, 0.0, 0.5)):
            expert, base = (
                evaluate.held_out(run, prepared, data.tell(run, episodes, told)).episodes
                for episodes in (prepared.experts[own]["test"], prepared.base["test"])
            )
            ranked = measures.auroc(*(np.asarray(values(x)[0]) for x in (expert, base)))
            assert low <= ranked.value <= high, (own, told)


def test_plans_of_the_steered_base_end_where_the_reward_is_told(trained):
    run, prepared, every = trained
    compiled = evaluate.compile_measurements(run)
    models = every.of_goal(run.config, 0, 0)
    for index in range(2):
        told = data.with_base_told(run, prepared, index)
        base = evaluate.held_out(run, told, told.base["test"])
        goal = run.maze.goals[run.config.goals[index] - 1]
        found, _ = evaluate.compare_plans(run, told, compiled, models, base, goal)
        reached = found["reached"]
        for way in ("expert", "difference", "steered 1"):
            assert reached[way] >= 2 * reached["unsteered"] + 0.1, (index, way)


@pytest.mark.slow
def test_the_whole_run_finds_its_goals_and_says_what_it_is(config, tmp_path):
    summary = maze2d.main(config, tmp_path)["summary"]
    assert summary["goals_recovered"] == 2
    assert summary["auroc"] > 0.8
    assert summary["fvu"] < 0.4
    page = (tmp_path / "report.md").read_text()
    assert "goes to the goal\nthat it is told" in page


def test_goals_are_shown_where_they_are_and_nowhere_else(trained, config):
    run, prepared, _ = trained
    goals = run.maze.goals[np.array(config.goals) - 1].astype(np.float32)
    for goal, expert in zip(goals, prepared.experts, strict=True):
        for part in expert.values():
            assert part.observations.shape[1] == OBS + GOAL
            np.testing.assert_array_equal(
                part.observations[:, OBS:], np.broadcast_to(goal, (len(part.rewards), GOAL))
            )
    train = prepared.base["train"]
    told = np.unique(train.observations[train.starts][:, OBS:], axis=0)
    np.testing.assert_array_equal(told, np.unique(goals, axis=0))
    for start, length in zip(train.starts, train.lengths, strict=True):
        assert np.ptp(train.observations[start : start + length, OBS:], axis=0).max() == 0
    again = data.with_base_told(run, prepared, 1).base["test"].observations
    np.testing.assert_array_equal(
        again[:, :OBS], prepared.base["test"].observations[:, :OBS]
    )
    assert (again[:, OBS:] == goals[1]).all()
    pinned = np.asarray(run.model.pinned)
    assert pinned[:, -GOAL:].all()
    assert pinned[0, ACT:].all()
    assert not pinned[1:, :-GOAL].any()
    windows = data.expert_windows(run, prepared, "train")
    assert windows.count.tolist() == [len(windows.start)]
    assert windows.offset.tolist() == [0]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("rewards.preset", "paper", "rewards.preset='paper' shows a reward its conditions"),
        ("window_rewards.source", "models", "source='models' samples from first states"),
    ],
)
def test_what_would_show_a_goal_with_noise_is_refused(key, value, message):
    config = configs.get_config("umaze,smoke,conditioned")
    section, name = key.split(".")
    with config.unlocked():
        config[section][name] = value
    with pytest.raises(ValueError, match=message):
        check(config)


def test_policies_are_paid_by_rewards_of_one_goal():
    from configs import rl

    config = rl.get_config("umaze,smoke")
    with config.unlocked():
        config.maze2d.conditioned = True
    with pytest.raises(ValueError, match=r"set maze2d\.conditioned=False"):
        check_rl(config)


def test_maps_show_the_goal_without_noise(config, tmp_path):
    class TellsTheGoal:
        """A reward of windows that is what it is told."""

        def window_fn(self, params):
            return lambda x, t: params * x[:, -GOAL:].sum()

    run = build(config, tmp_path)._replace(window_reward=TellsTheGoal())
    x = np.random.default_rng(0).normal(size=(5, run.window, ACT + OBS + GOAL))
    x = x.astype(np.float32)
    got = maps.make_window_values(run)(np.float32(2), x)
    np.testing.assert_allclose(got, 2 * x[:, :, -GOAL:].sum((1, 2)), rtol=1e-5, atol=1e-5)
