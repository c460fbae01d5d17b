"""The whole locomotion experiment on its smoke preset, on data made here."""

import json
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import locomotion as configs
from diffreward import data as d
from diffreward.diffusion import from_eps, posterior_mean
from diffreward.learn import init
from diffreward.report import StaleRunError
from diffreward.steer import guide, make_controller, plan, roll_out
from experiments import report as collect
from experiments.locomotion import run as locomotion
from experiments.locomotion.data import noised, prepare
from experiments.locomotion.rollouts import VALIDATION, choose_guidance
from experiments.locomotion.rows import MEANING, Method, difference_of_means
from experiments.locomotion.training import train_all
from experiments.locomotion.visited import FIRST, steered_plans
from tests.data.test_locomotion import policy
from tests.learn.toy import BASE, EXPERT, MODEL, SCHEDULE, SHAPE, normals


@pytest.fixture(scope="module", autouse=True)
def _optax_promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    config = configs.get_config("hopper,smoke")
    with config.unlocked():
        for i, name in enumerate(("base", "expert")):
            stream = d.act_in("hopper", policy(seed=i), seed=i, steps=1500)
            d.write_hdf5(folder / f"{name}.hdf5", stream, {})
            config.data[name] = str(folder / f"{name}.hdf5")
        for stage in (
            "base",
            "expert",
            "start",
            "rewards",
            "paper_rewards",
            "discriminator",
            "value",
        ):
            config[stage].devices = 1
        config.evaluation.candidates = 2
        config.rewards.rounds, config.rewards.visits = 2, 2
        config.evaluation.rows = tuple(MEANING)
    return config


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("locomotion")
    return workdir, locomotion.main(config, workdir)


def test_every_method_is_in_the_table(run):
    workdir, result = run
    names = {
        "unsteered",
        "expert",
        "difference",
        "score",
        "score-chosen",
        "best-of-n",
        "best-steered",
        "smc",
        "energies",
        "means",
        "means-exact",
        "discriminator",
        "value",
    }
    assert set(result["methods"]) == names
    page = (workdir / "report.md").read_text()
    for name in names:
        assert f"| {name} |" in page
    assert "| steered by the learned reward, scale 1 |" in page
    assert "score [95 %] |" in page
    assert "\\" not in page
    for name in ("scores.png", "fvu.png", "film.gif"):
        assert (workdir / "figures" / name).stat().st_size > 3000
    assert json.loads((workdir / "report.json").read_text()) == result


def test_a_table_of_some_rows_is_made_from_what_is_there(config, run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(run[0], workdir)
    for name in ("config.json", "report.json", "score-chosen.npz", "value.npz"):
        (workdir / "evaluation" / name).unlink()
    few = config.copy_and_resolve_references()
    with few.unlocked():
        few.evaluation.rows = ("energies",)
    result = locomotion.main(few, workdir)
    assert set(result["methods"]) == {"unsteered", "score", "expert", "energies"}
    assert result["methods"]["energies"] == run[1]["methods"]["energies"]
    page = (workdir / "report.md").read_text()
    assert "steered (`score`)" in page
    assert "| value |" not in page


def test_finished_runs_are_collected_in_one_table(run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run[0], other)
    page = collect.main([str(run[0]), str(other), "--out", str(tmp_path)]).read_text()
    score = run[1]["methods"]["score"]["score"][0]
    line = next(line for line in page.splitlines() if line.startswith("| score |"))
    assert line.count(f"{score:.1f} [") == 2
    assert "not verified" in page
    assert "\\" not in page


def test_reports_of_unknown_runs_are_refused(tmp_path):
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(ValueError, match="no run of mazes, locomotion or images"):
        collect.main([str(tmp_path), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_seeds_and_episodes_are_counted(run, config):
    methods = run[1]["methods"]
    seeds, episodes = config.rewards.seeds, config.evaluation.episodes
    assert methods["score"]["episodes"] == seeds * episodes
    assert methods["expert"]["episodes"] == seeds * episodes
    assert len(methods["score-chosen"]["tried"]) == len(config.evaluation.scales)


def test_the_score_difference_at_scale_one_is_the_expert(run):
    methods = run[1]["methods"]
    assert methods["difference"]["return"] == pytest.approx(
        methods["expert"]["return"], rel=1e-3
    )
    assert methods["difference"]["gap_closure"][0] == pytest.approx(1.0, abs=0.05)


def test_the_best_reward_of_the_published_loss_has_the_difference_as_its_gradient():
    pair = MODEL.pair(BASE, EXPERT)
    x, t = normals(3, *SHAPE), jnp.int32(4)
    found = jax.grad(difference_of_means(pair))(x, t)
    for name, model in {"base": pair.base, "expert": pair.expert}.items():
        x_0 = from_eps(SCHEDULE, "x_0", x, t, model(x, t))
        sign = {"base": -1, "expert": 1}[name]
        found = found - sign * posterior_mean(SCHEDULE, x_0, x, t)
    np.testing.assert_allclose(found, 0.0, atol=1e-5)


def test_guidance_is_the_best_of_scales_and_last_levels():
    """Returns that peak at scale 2 guided down to level 3; a fixed scale tries nothing."""
    asked = []

    def play(scale, t_stop, seeds):
        asked.append((scale, t_stop))
        value = -abs(scale - 2.0) - abs(t_stop - 3)
        return SimpleNamespace(returns=np.full((len(seeds), len(seeds[0])), value))

    method = Method(None, [None, None], None, t_stops=(0, 3))  # pyright: ignore
    found = choose_guidance(play, method, (1.0, 2.0, 4.0), 4)
    assert (found.choice.scale, found.t_stop) == (2.0, 3)
    tried = [(stop, scale) for stop in (0, 3) for scale in (1.0, 2.0, 4.0)]
    assert [row[:2] for row in found.tried] == tried
    assert found.choice.seeds == tuple(range(VALIDATION, VALIDATION + 4))
    assert len(asked) == 6
    fixed = choose_guidance(play, method._replace(scale=0.5, t_stops=(5,)), (1.0,), 4)
    assert (fixed.choice.scale, fixed.t_stop, fixed.tried) == (0.5, 5, [])
    assert len(asked) == 6


def test_every_seed_has_episodes_of_its_own_that_chose_nothing(run):
    arrays = np.load(run[0] / "evaluation" / "score.npz")
    assert arrays["returns"].shape == (2, 2)
    assert len(np.unique(arrays["returns"])) == 4


def test_a_killed_evaluation_goes_on_with_the_next_method(run, config, tmp_path):
    workdir, result = run
    again = tmp_path / "again"
    shutil.copytree(workdir, again)
    (again / "evaluation" / "report.json").unlink()
    (again / "evaluation" / "value.npz").unlink()
    stamp = (again / "evaluation" / "score.npz").stat().st_mtime_ns
    other = locomotion.main(config, again)
    assert (again / "evaluation" / "score.npz").stat().st_mtime_ns == stamp
    for method in other["methods"].values():
        for key in ("steps_per_second", "planner_seconds", "physics_seconds"):
            del method[key]
    for name, method in other["methods"].items():
        for key, value in method.items():
            assert value == result["methods"][name][key]


def test_energies_steer_without_training_as_the_expert_acts(run):
    methods = run[1]["methods"]
    assert methods["energies"]["return"] == pytest.approx(
        methods["expert"]["return"], rel=1e-2
    )
    assert methods["unsteered"]["return"] != methods["expert"]["return"]


def before_rounds(config):
    """The config of the same run without rounds."""
    other = config.copy_and_resolve_references()
    with other.unlocked():
        other.rewards.rounds = 0
    return other


def test_rounds_train_on_what_the_steered_base_met(run, config):
    """Round 2 steers with the rewards of round 1 and learns from the states of both."""
    workdir, result = run
    seeds = config.rewards.seeds
    states = [np.load(workdir / f"visited_{n}" / "states.npz")["states"] for n in (1, 2)]
    for turn, found in enumerate(states, 1):
        assert found.shape[::2] == (seeds, 11)
        env = d.make_locomotion("hopper")
        first = FIRST + turn * seeds * config.rewards.visits
        start = env.reset(seed=first)[0].astype(np.float32)
        assert (found[0] == start).all(1).any()
    of_run = locomotion.build(config, workdir)
    model, prepared = of_run.denoiser, prepare(of_run)
    trained = train_all(of_run._replace(config=before_rounds(config)), prepared)
    reward = jax.tree.map(lambda x: x[0], trained.rewards["rewards"])
    rho = of_run.rewards["rewards"].reward_fn(reward)
    eps_fn = guide(
        model.eps_fn(trained.base), rho, model.schedule, 1.0, pinned=model.pinned
    )
    act = make_controller(
        eps_fn, model.schedule, prepared.normaliser, model.pinned, 3, num_evaluations=5
    )
    seen = []

    def watch(keys, step, observations):
        seen.append(np.array(observations))
        return jax.jit(act)(keys, step, observations)

    first = FIRST + seeds * config.rewards.visits
    own = range(first, first + config.rewards.visits)
    limits = {"max_steps": config.evaluation.max_steps}
    roll_out(lambda: d.make_locomotion("hopper"), watch, own, **limits)
    by_hand = np.concatenate(seen)
    near = np.abs(states[0][0][:, None] - by_hand[None]).max(-1).min(1)
    assert near.max() < 1e-2
    read = lambda name: json.loads((workdir / name / "inputs.json").read_text())
    assert {"visited_1"} == read("rewards_1").keys() - read("rewards").keys()
    assert {"visited_1", "visited_2"} == read("rewards_2").keys() - read("rewards").keys()
    assert read("visited_2").keys() == {"data", "base", "rewards_1"}
    assert "rewards_2" in read("evaluation")
    kept = np.load(workdir / "evaluation" / "score.npz")["visited"]
    assert kept.shape[1] == 11
    assert 0 < result["rewards"]["rewards"]["visited_fvu"] < 10
    assert "visited_fvu" not in result["rewards"]["paper_rewards"]


def test_plans_from_visited_states_start_there_and_are_those_of_the_steered_base(
    run, config
):
    of_run = locomotion.build(config, run[0])
    prepared = prepare(of_run)
    key = jax.random.key(3)
    base = of_run.denoiser.init(key)
    reward = of_run.rewards["rewards"]
    rho = init(reward.network, of_run.denoiser.shape, key, start=base)
    states = prepared.base["test"].observations[:5]
    asked = (of_run, prepared.normaliser, base)
    found = steered_plans(*asked, rho, states, 7)
    own = d.unnormalise(prepared.normaliser, found)[:, 0, 3:]
    np.testing.assert_allclose(own, states, rtol=1e-4, atol=1e-5)
    # A residual reward that has learned nothing yet leaves the base alone.
    model, known = of_run.denoiser, jnp.asarray(found)
    first = jax.random.fold_in(jax.random.key(7), 0)
    alone = plan(model.eps_fn(base), model.schedule, first, known, model.pinned)
    np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-4)
    moved = {**rho, "energy": jax.tree.map(lambda x: x + 0.1, rho["energy"])}
    assert np.abs(steered_plans(*asked, moved, states, 7) - found).max() > 1e-3


def test_rounds_need_a_batch_for_one_more_set(config, tmp_path):
    other = config.copy_and_resolve_references()
    with other.unlocked():
        other.rewards.batch_size, other.rewards.accumulate = 8, 2
    with pytest.raises(ValueError, match=r"does not split over 5 sets of"):
        locomotion.main(other, tmp_path)
    assert not list(tmp_path.iterdir())


def test_rounds_go_on_from_crossed_states_alone(config, tmp_path):
    other = config.copy_and_resolve_references()
    with other.unlocked():
        other.rewards.source = "mixed"
    with pytest.raises(ValueError, match=r"rewards\.source='crossed'"):
        locomotion.main(other, tmp_path)
    with other.unlocked():
        other.rewards.source = "steered"
    with pytest.raises(ValueError, match=r"unknown rewards\.source 'steered'"):
        locomotion.main(other, tmp_path)


@pytest.mark.slow
def test_models_need_not_be_conservative(config, tmp_path):
    other = config.copy_and_resolve_references()
    with other.unlocked():
        other.model.conservative = other.expert_model.conservative = False
    methods = locomotion.main(other, tmp_path)["methods"]
    assert "energies" not in methods
    assert methods["difference"]["gap_closure"][0] == pytest.approx(1.0, abs=0.05)


@pytest.mark.slow
def test_rewards_transfer_to_a_base_of_another_seed(run, config, tmp_path):
    other = config.copy_and_resolve_references()
    with other.unlocked():
        other.other_base = True
    for stage in run[0].iterdir():
        if stage.is_dir() and stage.name not in ("evaluation", "figures"):
            shutil.copytree(stage, tmp_path / stage.name)
    result = locomotion.main(other, tmp_path)
    assert (tmp_path / "other_base" / "report.json").exists()
    ours = result["methods"]["unsteered"]["return"]
    assert ours != run[1]["methods"]["unsteered"]["return"]
    assert result["methods"]["expert"]["return"] == run[1]["methods"]["expert"]["return"]


def test_other_data_do_not_mix_with_old_results(run, config):
    other = config.copy_and_resolve_references()
    with other.unlocked():
        other.data.limit = 500
    with pytest.raises(StaleRunError, match=r"data\.limit was 0"):
        locomotion.main(other, run[0])


def test_data_of_another_task_are_refused_before_training(config, tmp_path):
    other = config.copy_and_resolve_references()
    with other.unlocked():
        other.task = "walker2d"
    with pytest.raises(ValueError, match="walker2d has 17 and 6; this looks like hopper"):
        locomotion.main(other, tmp_path)
    assert not (tmp_path / "base").exists()


def test_the_noise_of_a_study_is_fixed_and_the_bases_alone(run, config):
    other = config.copy_and_resolve_references()
    with other.unlocked():
        other.data.base_noise = 0.5
    plain, noisy = (locomotion.build(c, run[0]) for c in (config, other))
    prepared = prepare(plain)
    assert noised(plain, prepared, "train") is prepared.base["train"]
    clean, found = prepared.base["train"], noised(noisy, prepared, "train")
    acts, scale = clean.actions.shape[1], prepared.normaliser.scale
    for x, y, size in (
        (clean.actions, found.actions, scale[:acts]),
        (clean.observations, found.observations, scale[acts:]),
    ):
        added = (y - x) / size
        np.testing.assert_allclose(added.std(0), 0.5, rtol=0.15)
        assert np.abs(added).max() < 0.5 * 5.01
    again = noised(noisy, prepared, "train")
    np.testing.assert_array_equal(again.observations, found.observations)
    assert not np.array_equal(
        noised(noisy, prepared, "val").actions[:20], found.actions[:20]
    )
    # What rewards and measurements read stays as it was.
    np.testing.assert_array_equal(prepare(noisy).base["train"].actions, clean.actions)


def test_limits_keep_whole_episodes(config):
    episodes = d.read_hdf5(config.data.base)
    part = d.first_transitions(episodes, 100)
    assert 100 <= len(part.rewards) < 100 + episodes.lengths.max()
    np.testing.assert_array_equal(part.lengths, episodes.lengths[: len(part.lengths)])
