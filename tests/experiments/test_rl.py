"""The maze as a vector environment, rewards paid in it, and the summary of a run."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import rl as configs
from diffreward import data as d
from diffreward import files, measures, report
from diffreward.learn import log_density
from diffreward.steer import wrappers
from diffreward.steer.stepwise import clean_reward, make_step_reward
from experiments.build import build_scalar
from experiments.maze2d import build as maze2d
from experiments.rl import build, page, pay, states
from experiments.rl import run as rl

WINDOW = 8


@pytest.fixture(autouse=True)
def _flax_promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def config():
    return configs.get_config("umaze,smoke")


@pytest.fixture(scope="module")
def study(config):
    """A maze run with untrained rewards and random-walk data."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        run = maze2d.build(config.maze2d, Path("never written"))
        x, t = jnp.zeros(run.model.shape), jnp.zeros((), jnp.int32)
        one = lambda k: run.window_reward.network.init(jax.random.key(k), x, t)
        params = jax.tree.map(lambda *x: jnp.stack(x), one(0), one(1))
    rng = np.random.default_rng(0)
    rows = 400
    episodes = d.Episodes.from_arrays(
        rng.uniform(-1.2, 1.2, (rows, 4)),
        rng.uniform(-1, 1, (rows, 2)),
        timeouts=np.arange(rows) % 40 == 39,
    )
    normaliser = d.fit_limits(d.transitions(episodes))
    prepared = maze2d.Prepared(normaliser, {"train": episodes}, [{"train": episodes}] * 2)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        of_states = untrained_states(config, run, prepared)
    return build.Study(config, run.workdir, run, prepared, params, of_states)


def untrained_states(config, run, prepared):
    own = states.build_run(config, run)
    network = build_scalar(config.states.discriminator)
    x, t = jnp.zeros(own.model.shape), jnp.zeros((), jnp.int32)
    stack = lambda network: jax.tree.map(
        lambda *x: jnp.stack(x), *(network.init(jax.random.key(k), x, t) for k in (0, 1))
    )
    rewards, discriminators = stack(own.reward.network), stack(network)
    bare = states.without_actions(prepared)
    base = own.model.init(jax.random.key(9))
    return states.States(own, bare, base, rewards, network, discriminators)


def make_env(study, pay, count=6, **options):
    pytest.importorskip("stable_baselines3")
    from experiments.rl.env import MazeVecEnv

    return MazeVecEnv(
        study.run.maze,
        study.run.maze.goals[0],
        study.prepared.normaliser,
        pay,
        num_envs=count,
        frame_skip=6,
        episode_steps=20,
        window=WINDOW,
        seed=0,
        **options,
    )


def affine(raw, paid):
    """Paid is raw up to one shift and one positive factor."""
    slope, shift = np.polyfit(raw, paid, 1)
    assert slope > 0
    np.testing.assert_allclose(slope * raw + shift, paid, atol=1e-3 * np.ptp(paid))


@pytest.mark.parametrize("kind", ["states", "random", "discriminator", "regularised"])
def test_states_are_paid_the_value_of_their_state_alone(study, kind):
    goal = 1 if kind == "random" else 8
    payment = pay.make_pay(study, build.Job(goal, kind, 3))
    rng = np.random.default_rng(1)
    rows = rng.uniform(-1, 1, (12, WINDOW, 6)).astype(np.float32)
    # Nothing of the action or of the past is read, and no step is too early.
    for other in (rows.copy(), rows.copy()):
        other[:, -1, :2], other[:, :-1] = 0.3, 0.7
        short = wrappers.History(other, np.ones(12, int))
        whole = wrappers.History(rows, np.full(12, WINDOW))
        paid = payment(whole, np.zeros(12))
        np.testing.assert_allclose(payment(short, np.zeros(12)), paid, rtol=1e-5)
    own = study.states.run
    member = 1 if goal == 8 else 0  # goal 8 is the second member of the smoke run
    params = jax.tree.map(lambda x: x[member], study.states.rewards)
    if kind == "random":
        x, t = jnp.zeros(own.model.shape), jnp.zeros((), jnp.int32)
        params = own.reward.network.init(jax.random.key(3), x, t)
    normaliser = study.states.prepared.normaliser
    x = d.normalise(normaliser, jnp.asarray(rows[:, -1:, 2:]))
    level = jnp.int32(1)
    if kind == "discriminator":
        params = jax.tree.map(lambda x: x[member], study.states.discriminators)
        rho = lambda x: study.states.discriminator.apply(params, x, level)
    elif kind == "regularised":
        # The score of the added part is beta times that of the base.
        density = log_density(own.model, study.states.base)
        rho = lambda x: own.reward.reward_fn(params)(x, level) + 0.3 * density(x, level)
    else:
        rho = lambda x: own.reward.reward_fn(params)(x, level)
    scale = own.model.schedule.sqrt_alpha_bar[1]
    affine(np.asarray(jax.vmap(rho)(scale * x)), paid)


@pytest.mark.slow
def test_a_pair_of_states_says_where_the_expert_is_more_often(config, tmp_path):
    """Two goals, trained from their data alone: each reward is highest at its own."""
    rng = np.random.default_rng(7)
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.states.model.width, config.states.levels = 48, (4,)
        for name in ("base", "experts", "rewards", "discriminator"):
            section = config.states[name]
            section.steps, section.learning_rate, section.devices = 400, 3e-3, 1
    run = maze2d.build(config.maze2d, tmp_path)
    goals = [run.maze.goals[goal - 1] for goal in config.maze2d.goals]
    places = d.sample_free(run.maze, rng, 6000)

    def episodes(x):
        states = np.concatenate([x, rng.normal(0, 0.5, x.shape)], 1)
        ends = np.arange(len(x)) % 50 == 49
        whole = d.Episodes.from_arrays(states, rng.normal(size=x.shape), timeouts=ends)
        parts = d.split_episodes(len(whole.starts), 0)
        return {name: d.select(whole, index) for name, index in parts.items()}

    near = lambda goal: np.concatenate(
        [goal + rng.normal(0, 0.3, (3000, 2)), places[:3000]]
    )
    base, experts = episodes(places), [episodes(near(goal)) for goal in goals]
    normaliser = d.fit_limits(d.transitions(base["train"]))
    prepared = maze2d.Prepared(normaliser, base, experts)
    report.open_stage(tmp_path / "data", {})
    found = states.train_states(config, run, prepared)
    assert found.run.model.shape == (1, 4)
    assert not found.run.model.pinned.any()
    study = build.Study(config, tmp_path, run, prepared, {}, found)
    for kind in ("states", "discriminator"):
        for i, goal in enumerate(goals):
            raw = pay.FORMS[kind].make(study, build.Job(config.maze2d.goals[i], kind, 0))
            rows = np.zeros((2, WINDOW, 6), np.float32)
            rows[:, -1, 2:4] = [goal, goals[1 - i]]
            here, elsewhere = raw(wrappers.History(rows, np.ones(2, int)), np.zeros(2))
            assert here > elsewhere + 0.5
    for name in ("base", "experts", "rewards", "discriminators"):
        assert (tmp_path / "states" / name / "report.json").exists()
    assert not (tmp_path / "states" / "data").exists()


def test_counting_pays_places_by_how_often_the_expert_is_there(config, study):
    rng = np.random.default_rng(6)
    maze = study.run.maze
    free = lambda count: d.sample_free(maze, rng, count)
    goal = maze.goals[7]
    near = goal + rng.normal(0, 0.2, (3000, 2))
    of = lambda places: d.Episodes.from_arrays(
        np.concatenate([places, 0 * places], 1),
        np.zeros((len(places), 2)),
        timeouts=np.arange(len(places)) % 50 == 49,
    )
    base, expert = of(free(6000)), of(np.concatenate([near, free(3000)]))
    prepared = study.prepared._replace(
        base={"train": base}, experts=[{}, {"train": expert}]
    )
    payment = pay.make_pay(study._replace(prepared=prepared), build.Job(8, "counting", 0))
    rows = np.zeros((2, WINDOW, 6), np.float32)
    rows[:, -1, 2:4] = [goal, maze.goals[0]]
    paid = payment(wrappers.History(rows, np.ones(2, int)), np.zeros(2))
    assert paid[0] > 1 > paid[1]


@pytest.mark.parametrize("kind", ["true", "windows"])
def test_windows_are_paid_to_the_step_that_completes_them(config, study, kind):
    goal = 8 if kind == "windows" else 1
    payment = pay.make_pay(study, build.Job(goal, kind, 3))
    rng = np.random.default_rng(1)
    rows = rng.uniform(-1, 1, (WINDOW + 3, 6)).astype(np.float32)
    true = d.true_reward(rows[:, 2:], study.run.maze.goals[goal - 1])
    history, paid = wrappers.empty_history(1, WINDOW, 6), []
    for row, r in zip(rows, true, strict=True):
        history = wrappers.push(history, row[None])
        paid.append(payment(history, r[None])[0])
    if kind == "true":
        raw = true
    else:
        params = jax.tree.map(lambda x: x[1], study.window_rewards)
        value = clean_reward(
            study.run.window_reward.window_fn(params),
            study.run.model.schedule,
            jax.random.key(0),
            jnp.array([0, 8, 16, 24]),
            num_noises=0,
        )
        one = make_step_reward(value, study.prepared.normaliser, WINDOW)
        raw = np.asarray(one(jnp.asarray(rows[:, 2:]), jnp.asarray(rows[:, :2])))
        assert paid[: WINDOW - 1] == [0] * (WINDOW - 1)
        raw, paid = raw[WINDOW - 1 :], paid[WINDOW - 1 :]
    if np.ptp(raw) > 0:
        affine(np.asarray(raw), np.asarray(paid))


@pytest.mark.parametrize("kind", ["map", "ranks"])
def test_places_are_paid_what_windows_through_them_are_worth(study, monkeypatch, kind):
    # A reward of windows that says how far right they are: the map has to say it too.
    rightness = lambda run: lambda params, x: x[:, :, 2].mean(1)
    monkeypatch.setattr(pay.maps, "make_window_values", rightness)
    rng = np.random.default_rng(4)
    line = np.repeat(rng.uniform(-1, 1, 300) + 0.2, 20)  # every episode stays at one place
    episodes = d.Episodes.from_arrays(
        np.stack([line, 0 * line, 0 * line, 0 * line], 1),
        np.zeros((len(line), 2)),
        timeouts=np.arange(len(line)) % 20 == 19,
    )
    prepared = study.prepared._replace(base={"train": episodes})
    other = study._replace(prepared=prepared)
    payment = pay.make_pay(other, build.Job(8, kind, 0))
    places = np.linspace(-0.7, 0.7, 15)
    rows = np.zeros((15, WINDOW, 6), np.float32)
    rows[:, :-1] = rng.uniform(-1, 1, (15, WINDOW - 1, 6))  # the past is not looked at
    rows[:, -1, 2] = places
    # Short histories are paid too.
    paid = payment(wrappers.History(rows, np.ones(15, int)), np.zeros(15))
    if kind == "ranks":
        # The surprise of places further right has mean 1 and deviation 1.
        share = (line[:, None] >= places).mean(0)
        np.testing.assert_allclose(paid, -np.log(share) - 1, atol=0.2)
        return
    slope, shift = np.polyfit(places, paid, 1)
    np.testing.assert_allclose(slope * places + shift, paid, atol=0.15)
    # Mean 0 and deviation 1 on the data, up to the map's bins and smoothing.
    assert slope == pytest.approx(1 / line.std(), rel=0.1)
    assert shift == pytest.approx(-line.mean() / line.std(), abs=0.1)


def test_epic_of_states_is_that_of_the_library(study, monkeypatch):
    """Against the distance that knows nothing of rewards of states."""
    monkeypatch.setattr(pay, "SCALING_WINDOWS", 600)
    job = build.Job(8, "states", 0)
    slope = jnp.array([0.3, -1.0, 0.2, 0.0])
    monkeypatch.setattr(pay.d, "true_reward", lambda s, goal: np.asarray(s @ slope))
    found = pay.epic_to_truth(study, job)
    own = study.states.run
    params = jax.tree.map(lambda x: x[1], study.states.rewards)
    normaliser, scale = study.states.prepared.normaliser, own.model.schedule.sqrt_alpha_bar

    def extracted(s, a, s_next):
        x = scale[1] * d.normalise(normaliser, s[None])
        return own.reward.reward_fn(params)(x, jnp.int32(1))

    true = lambda s, a, s_next: s_next @ slope
    states = jnp.asarray(pay.sample_windows(study)[:, -1, 2:])
    actions = jnp.zeros((len(states), 2))
    # From anywhere: it is the state that is reached which counts.
    steps = measures.Transitions(jnp.roll(states, 7, axis=0), actions, states)
    cover = measures.Coverage(states[:40], actions[:40])
    wanted = measures.epic_distance(extracted, true, steps, cover, 0.9)
    assert found == pytest.approx(wanted, abs=1e-3)
    assert 0.01 < found < 0.99
    assert pay.epic_to_truth(study, build.Job(8, "windows", 0)) is None
    assert pay.epic_to_truth(study, build.Job(8, "true", 0)) == pytest.approx(0, abs=1e-4)


def test_episodes_of_the_vector_environment_are_those_of_the_simulator(study):
    env = make_env(study, lambda history, true: true)
    first = env.reset()
    shift, scale = (np.asarray(x)[2:] for x in study.prepared.normaliser)
    state = first * scale + shift
    rng = np.random.default_rng(2)
    physics = d.make_physics(study.run.maze)
    total = np.zeros(6)
    for step in range(20):
        action = rng.uniform(-2, 2, (6, 2))
        state = d.step(physics, state, np.clip(action, -1, 1), 6)
        env.step_async(action)
        observation, reward, over, infos = env.step_wait()
        gap = np.linalg.norm(state[:, :2] - study.run.maze.goals[0], axis=1)
        near = np.abs(gap - d.GOAL_RADIUS) > 1e-3
        np.testing.assert_array_equal(reward[near], (gap <= d.GOAL_RADIUS)[near])
        total += reward
        assert over.all() == (step == 19)
        seen = [i["terminal_observation"] for i in infos] if over.all() else observation
        np.testing.assert_allclose(np.stack(list(seen)) * scale + shift, state, atol=1e-3)
    assert [i["true_return"] for i in infos] == total.tolist()
    assert np.all(env.history.count == 0)
    at_rest = observation * scale + shift
    np.testing.assert_allclose(at_rest[:, 2:], 0, atol=1e-5)


def test_staggered_episodes_have_their_own_ends(study):
    env = make_env(study, lambda history, true: true, stagger=True)
    env.reset()
    ends = np.zeros((60, 6), bool)
    for step in range(60):
        env.step_async(np.zeros((6, 2)))
        ends[step] = env.step_wait()[2]
    assert not np.all(ends.any(1) == ends.all(1))
    for column in ends.T:
        assert set(np.diff(np.flatnonzero(column))) == {20}


def records(config, returns):
    """Records whose true return is given by (kind, goal, seed)."""
    found = {}
    for goal in config.goals:
        for kind in config.rewards:
            for seed in build.seeds(config):
                final = returns(kind, goal, seed)
                found[build.Job(goal, kind, seed)] = {
                    "curve": [(0, 5.0), (100, final)],
                    "return": final,
                    "reached": 1.0,
                    "epic": None if kind == "random" else 0.25,
                    "seconds": 2.0,
                }
    return found


def test_shares_and_regret_are_means_over_goals(tmp_path):
    config = configs.get_config("umaze")
    with config.unlocked():
        config.goals, config.rewards = (1, 5), ("true", "states", "random")
    values = {"true": 80.0, "states": 60.0, "random": 5.0}
    by_hand = lambda kind, goal, seed: values[kind] * (1 if goal == 1 else 0.5) + seed
    found = records(config, by_hand)
    result = rl.summarise(config, found)
    extracted = result["kinds"]["states"]
    # Means over seeds 0 to 4 add 2: 62 of 82 at goal 1, 32 of 42 at goal 5.
    share = (62 / 82 + 32 / 42) / 2
    assert extracted["share"][0] == pytest.approx(share)
    half = 12.706 * abs(62 / 82 - 32 / 42) / 2  # Student's t of two goals, sd / sqrt 2
    assert extracted["share"][2] - share == pytest.approx(half, rel=0.1)
    assert extracted["share"][1] < share < extracted["share"][2]
    assert extracted["epic"] == 0.25
    assert result["kinds"]["random"]["epic"] is None
    regret = ((82 - 62) / (82 - 5) + (42 - 32) / (42 - 5)) / 2
    assert extracted["regret"][0] == pytest.approx(regret)
    assert result["kinds"]["true"]["share"][0] == pytest.approx(1)
    page.write(config, tmp_path, found, result)
    text = (tmp_path / "report.md").read_text()
    assert f"| {100 * share:.1f} [" in text
    assert "\\" not in text
    assert json.loads((tmp_path / "report.json").read_text()) == result
    assert (tmp_path / "figures" / "learning.png").stat().st_size > 5000


def test_regret_has_no_scale_where_the_true_reward_teaches_nothing(tmp_path):
    config = configs.get_config("umaze,smoke")
    found = records(config, lambda kind, goal, seed: 4.0 if kind == "true" else 6.0)
    result = rl.summarise(config, found)
    assert result["untrained"] == {"1": 5.0}
    assert [kind["regret"] for kind in result["kinds"].values()] == [None] * 4
    page.write(config, tmp_path, found, result)
    assert page.NO_SCALE in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("rewards", ("true", "state"), "did you mean 'states'"),
        ("rewards", ("states",), "must include 'true'"),
        ("goals", (2,), "goal 2 has no expert"),
        ("first_seed", -1, "first_seed is -1"),
        ("states.levels", (), "name one or more"),
        ("states.levels", (32,), "write levels from 0 to 31"),
        ("states.beta", -0.1, r"states\.beta is -0.1"),
        ("states.model.conservative", False, "leave it True"),
        ("states.model.pinned", (0,), "what is pinned has no reward of its own"),
        ("states.base.steps", 0, r"states\.base\.steps is 0"),
        ("window_levels", 33, "more than the maze2d.model.num_steps=32"),
        ("steps", 5000, "not a multiple of the 4096 steps"),
    ],
)
def test_wrong_values_are_refused_before_any_work(key, value, message):
    config = configs.get_config("umaze,smoke")
    with config.unlocked():
        config.update_from_flattened_dict({key: value})
    with pytest.raises(ValueError, match=message):
        rl.check(config)


def test_the_maze_run_is_found_at_home_and_has_one_process_at_a_time(
    config, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(build.maze2d, "build", lambda *_: pytest.fail("not claimed"))
    monkeypatch.setattr(rl, "find_library", lambda: None)
    config = config.copy_and_resolve_references()
    config.run = "~/maze"
    with (
        files.claim(tmp_path / "maze"),
        pytest.raises(ValueError, match=rf"{tmp_path}/maze: another .* --config\.run"),
    ):
        rl.main(config, tmp_path / "rl")
    assert not (tmp_path / "rl").exists()


def test_a_missing_library_is_said_before_anything_is_trained(
    config, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "sbx", None)
    monkeypatch.setattr(rl, "build", lambda *_: pytest.fail("trained"))
    with pytest.raises(ValueError, match=r"pip install -e '\.\[rl\]'"):
        rl.main(config, tmp_path / "rl")


@pytest.mark.slow
def test_a_run_resumes_and_both_rewards_are_learned(study, tmp_path, monkeypatch):
    pytest.importorskip("sbx")
    # A reward of windows that says how near to the goal they are, by a curve flat there,
    # in a maze without walls in the way.
    maze = d.make_maze("open")
    goal = maze.goals[0]
    shift, scale = (np.asarray(x)[2:4] for x in study.prepared.normaliser)

    def nearness(run):
        away = lambda x: jnp.linalg.norm(x[..., 2:4] * scale + shift - goal, axis=-1)
        return lambda params, x: 1e4 - away(x).mean(1) ** 4

    monkeypatch.setattr(pay.maps, "make_window_values", nearness)
    places = d.sample_free(maze, np.random.default_rng(5), 2_000)
    observations = np.concatenate([places, np.zeros_like(places)], 1).repeat(WINDOW, 0)
    episodes = d.Episodes.from_arrays(  # every one rests where it starts
        observations,
        np.zeros((len(observations), 2)),
        timeouts=np.arange(len(observations)) % WINDOW == WINDOW - 1,
    )
    prepared = study.prepared._replace(base={"train": episodes})
    config = configs.get_config("open,smoke")
    with config.unlocked():
        config.seeds, config.rewards, config.run = (
            1,
            ("true", "map"),
            str(tmp_path / "m"),
        )
        config.steps = 65_536
        config.evaluate_every = 32_768
        config.maze2d.evaluation.map_episodes = len(places)
    run = study.run._replace(config=config.maze2d, maze=maze)
    open_maze = study._replace(
        config=config, workdir=tmp_path / "rl", run=run, prepared=prepared
    )
    monkeypatch.setattr(rl, "build", lambda config, workdir: open_maze)
    monkeypatch.setattr(rl.report, "stage_digest", lambda folder: "x")
    result = rl.main(config, tmp_path / "rl")
    kinds = result["kinds"]
    assert kinds["true"]["returns"]["1"][0] > 40
    assert kinds["map"]["share"][0] > 0.8
    monkeypatch.setattr(rl, "train", None)
    assert rl.main(config, tmp_path / "rl") == result


def test_settings_of_a_policy_hold_every_seed_and_no_name_twice():
    """The seed of the starts and that of a policy are two; neither may hide the other."""
    config = configs.get_config("umaze,smoke")
    with config.unlocked():
        config.seed = 7
    shared = rl.settings(config)
    assert shared != rl.settings(configs.get_config("umaze,smoke"))
    assert not {*shared} & {*build.Job._fields}


def test_seeds_of_a_form_share_one_payment_unless_it_is_seeded(
    study, tmp_path, monkeypatch
):
    made, paid = [], []

    def make(study, job):
        made.append(job)
        return pay.Payment(lambda history, true: true, float(len(made)))

    def train(study, job, payment):
        paid.append((job, payment.epic))
        return {"return": 0.0}

    monkeypatch.setattr(rl, "make_payment", make)
    monkeypatch.setattr(rl, "train", train)
    monkeypatch.setattr(rl.report, "stage_digest", lambda folder: "x")
    own = study._replace(workdir=tmp_path)
    assert set(rl.train_policies(own)) == set(own.jobs)
    kinds = own.config.rewards
    assert "random" in kinds
    assert len(made) == len(kinds) + 1  # each once, the random one for both seeds
    by_kind = {k: {e for job, e in paid if job.kind == k} for k in kinds}
    assert {k: len(v) for k, v in by_kind.items()} == {
        k: 1 + (k == "random") for k in kinds
    }
    first, second = (
        pay.make_payment(study, build.Job(1, "random", seed)).pay for seed in (0, 1)
    )
    rows = np.random.default_rng(0).uniform(-1, 1, (5, WINDOW, 6)).astype(np.float32)
    history = wrappers.History(rows, np.full(5, WINDOW))
    assert not np.allclose(first(history, np.zeros(5)), second(history, np.zeros(5)))
