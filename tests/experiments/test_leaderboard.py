"""The leaderboard: tables from records, stages that are not run twice, clear mistakes."""

import json

import jax
import numpy as np
import pytest
from scipy.stats import spearmanr

from configs import leaderboard as configs
from diffreward.data import make_maze
from diffreward.data.episodes import Episodes
from diffreward.extract import Source
from experiments.leaderboard import case as leaderboard_case
from experiments.leaderboard import maze as leaderboard_maze
from experiments.leaderboard import page as leaderboard_page
from experiments.leaderboard import run as leaderboard


@pytest.fixture(autouse=True)
def _optax_promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def tiny():
    config = configs.get_config("smoke")
    with config.unlocked():
        config.pairs = ("gaussians_equal_cov",)
        config.extractors = ("line_integral", "discriminator")
        config.num_steps, config.samples, config.test_samples = 4, 64, 3
        config.training.steps, config.training.batch_size = 2, 8
    return config


def test_finished_stages_are_read_back(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(leaderboard_page, "LAW_RESAMPLES", 20)
    first = leaderboard.main(tiny, tmp_path)
    rows = first["laws"]["gaussians_equal_cov"]
    # The scores of two Gaussians are affine: the line integral is exact.
    assert rows["line_integral"]["gradient_error"][0] < 1e-3
    value, low, high = rows["discriminator"]["gradient_error"]
    assert 0.1 < low < value < high
    # Nothing of the line integral is learned, and its models are exact: one seed.
    assert (rows["discriminator"]["seeds"], rows["line_integral"]["seeds"]) == (2, 1)
    costs = first["costs"]["closed forms"]
    assert costs["discriminator"]["evaluations"] == 2 * 8
    assert costs["line_integral"]["evaluations"] == 0
    page = (tmp_path / "report.md").read_text()
    assert f"{100 * value:.2f} [{100 * low:.2f}, {100 * high:.2f}]" in page
    assert "\\" not in page

    def never(*_args, **_kw):
        raise AssertionError("fitted twice")

    monkeypatch.setattr(leaderboard.extract, "fit", never)
    assert leaderboard.main(tiny, tmp_path) == first
    assert first == json.loads((tmp_path / "report.json").read_text())
    with tiny.unlocked():
        tiny.training.steps = 3
    with pytest.raises(leaderboard.report.StaleRunError, match="steps was 2, now 3"):
        leaderboard.main(tiny, tmp_path)


def test_a_conditional_pair_is_judged_within_its_contexts(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(leaderboard_page, "LAW_RESAMPLES", 20)
    with tiny.unlocked():
        tiny.pairs, tiny.test_samples = ("conditional",), 12
        tiny.extractors = ("line_integral",)
    rows = leaderboard.main(tiny, tmp_path)["laws"]["conditional"]
    # A law of every context is Gaussian; what a context is worth no line tells.
    assert rows["line_integral"]["gradient_error"][0] < 1e-3
    assert rows["line_integral"]["value_error"][0] < 1e-3
    kept = np.load(tmp_path / "conditional" / "seed_0" / "line_integral" / "scores.npz")
    assert len(np.unique(kept["context"])) == 3
    across = kept["value"] - kept["truth"]
    assert np.ptp(across[:, 0]) > 0.1


def test_a_pair_of_ones_own_is_an_entry(tiny, tmp_path, monkeypatch):
    """With a table of its own, a rival, and rows that differ by seed."""
    law = leaderboard_case.PAIRS["gaussians_equal_cov"]

    def prepare(case):
        contest = law.prepare(case)
        truth = np.linspace(0.0, 1.0, 6)
        clean = {"truth": truth, "episode": np.arange(6)}
        given = lambda sign: {"value": sign * truth, **clean}
        measure = lambda reward: given(1.0 if reward.extractor == "line_integral" else -1.0)
        rivals = {"backwards": leaderboard_case.Rival({"sign": -1}, lambda: given(-1.0))}
        return contest._replace(measure=measure, rivals=rivals)

    own = leaderboard_case.KnownReward(prepare, law.section, "Six samples")
    monkeypatch.setitem(leaderboard_case.PAIRS, "own", own)
    with tiny.unlocked():
        tiny.pairs = ("own",)
    found = leaderboard.main(tiny, tmp_path)["own"]["rows"]
    ranks = {name: row["rank_correlation"][0] for name, row in found.items()}
    assert ranks == pytest.approx(
        {"line_integral": 1, "discriminator": -1, "backwards": -1}
    )
    page = (tmp_path / "report.md").read_text()
    assert "## Six samples" in page
    assert "## Cost, own" in page
    assert (tmp_path / "own" / "seed_1" / "line_integral" / "scores.npz").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("pairs", ("gausians",), "did you mean 'gaussians'"),
        ("extractors", ("loss_gap:elb",), "did you mean 'loss_gap:elbo'"),
        ("samples", 1, "samples must be at least 2, got 1"),
        ("seeds", 0, "seeds must be at least 1, got 0"),
    ],
)
def test_wrong_values_are_refused(tiny, key, value, message):
    with tiny.unlocked():
        tiny[key] = value
    with pytest.raises(ValueError, match=message):
        leaderboard.check(tiny)


def test_every_row_names_an_extractor():
    config = configs.get_config()
    for row in leaderboard.ROWS:
        found = leaderboard.settings_of(config, "gaussians", row)
        kind = leaderboard.extract.EXTRACTORS[row.split(":")[0]].settings
        settings = found[kind]
        if kind is leaderboard.extract.Training:
            assert settings.steps == config.training.steps
        if "noises" in kind._fields:
            assert settings.noises == config.noises
        if ":" in row:
            assert settings.weighting == row.split(":")[1]
    assert {r.split(":")[0] for r in leaderboard.ROWS} == set(
        leaderboard.extract.EXTRACTORS
    )
    on_maze = leaderboard.settings_of(config, leaderboard_case.MAZE, "loss_gap:elbo")
    assert on_maze[leaderboard.extract.LossGap].noises == config.maze.noises


def test_a_stage_is_known_by_every_figure_of_its_case():
    """The keys by which finished stages are found again, whichever row they are of."""
    config = configs.get_config()
    t, m = config.training.to_dict(), config.maze
    sizes = {n: config[n] for n in ("num_steps", "samples", "test_samples", "beta")}
    fixed = {"steps_per_dispatch": 500, "progress": False}
    figures = {"weighting": "elbo", "noises": m.noises, "probes": m.probes}
    for row in ("discriminator", "line_integral", "loss_gap:elbo"):
        found = leaderboard.asked_of(config, leaderboard_case.MAZE, row)
        assert found == {**t, **sizes, **fixed, **figures}


def test_reward_of_windows_is_minus_the_mean_distance_to_the_goal():
    goal = make_maze("umaze").goals[leaderboard_maze.GOAL]
    track = goal + np.array([[3.0, 4.0], [0.0, 0.0], [0.0, 1.0]])
    ends = np.array([False, False, True])
    rows = np.hstack([track, track])
    episodes = Episodes.from_arrays(rows, np.zeros((3, 2)), timeouts=ends)
    found = leaderboard_maze.labelled(episodes, 2)
    assert found.x.shape == (2, 2, 2)
    np.testing.assert_allclose(found.rewards, [-2.5, -0.5], rtol=1e-6)
    apart = leaderboard_maze.labelled(episodes, 2, spacing=2)
    np.testing.assert_array_equal(apart.x, found.x[:1])


def test_held_out_windows_are_of_whole_episodes():
    ends = np.cumsum([5, 1, 4, 7]) - 1
    flags = np.isin(np.arange(17), ends)
    rows = np.arange(17.0)[:, None] * np.ones(4)
    episodes = Episodes.from_arrays(rows, np.zeros((17, 2)), timeouts=flags)
    found = leaderboard_maze.labelled(episodes, 2, spacing=2)
    np.testing.assert_array_equal(found.episode, [0, 0, 2, 2, 3, 3, 3])
    np.testing.assert_array_equal(found.x[:, 0, 0], [0, 2, 6, 8, 10, 12, 14])
    held_out = leaderboard_maze.HeldOut(found.x, found.rewards, found.episode)
    kept = leaderboard_maze.whole_episodes(held_out, 3)
    np.testing.assert_array_equal(kept.episode, [0, 0, 2, 2])
    with pytest.raises(ValueError, match="held_out=8 windows, but .* have 7; raise"):
        leaderboard_maze.whole_episodes(held_out, 8)


def test_counting_finds_where_the_expert_is_oftener():
    base = np.array([[[-0.9, -0.9]] * 2, [[0.9, 0.9]] * 2] * 8)
    expert = np.array([[[0.9, 0.9]] * 2, [[0.9, -0.9]] * 2] * 8)
    source = Source(base=base, expert=expert)
    x = np.array([[[0.9, 0.9]] * 2, [[0.9, -0.9], [-0.9, -0.9]]])
    # Visits by cell, one added: 17 against 17; 17 against 1, and 1 against 17.
    found = leaderboard_maze.log_visit_ratio(source, x, cells=2)
    np.testing.assert_allclose(found, [0, 0], atol=1e-12)
    found = leaderboard_maze.log_visit_ratio(source, x[1:, :1], cells=2)
    np.testing.assert_allclose(found, [np.log(17)])


def kept(folder, value, truth, episode):
    folder.mkdir()
    np.savez(folder / "scores.npz", value=value, truth=truth, episode=episode)
    return folder


def test_what_ranks_better_than_gradient_alignment_is_named(tmp_path):
    rng = np.random.default_rng(0)
    episode = np.repeat(np.arange(60), 4)
    rows = {name: [] for name in ("gradient_alignment", "better", "alike", "worse", "flat")}
    for seed in range(3):
        truth = rng.normal(size=len(episode))
        noise = {name: rng.normal(size=len(episode)) for name in rows}
        noisy = truth + 0.5 * noise["gradient_alignment"]
        values = {
            "gradient_alignment": noisy,
            "better": truth + 0.1 * noise["better"],
            "alike": noisy + 0.01 * truth + 0.01 * noise["alike"],
            "worse": truth + 2 * noise["worse"],
            "flat": np.zeros(len(episode)),
        }
        for name in rows:
            folder = kept(tmp_path / f"{name}_{seed}", values[name], truth, episode)
            rows[name].append(folder)
    found = leaderboard_page.clean_rows(rows)
    assert found["windows"] == [240] * 3
    assert found["episodes"] == [60] * 3
    expected = [
        spearmanr(*(np.load(f / "scores.npz")[n] for n in ("value", "truth"))).statistic
        for f in rows["worse"]
    ]
    value, low, high = found["rows"]["worse"]["rank_correlation"]
    assert value == pytest.approx(np.mean(expected))
    assert low < value < high
    assert found["rows"]["flat"]["rank_correlation"] == [0, 0, 0]
    said = leaderboard_page.verdict(found["rows"])
    place = 3 if found["rows"]["alike"]["above_gradient_alignment"][0] > 0 else 2
    assert said.startswith(f"Gradient alignment is number {place} of 5. Better: better")
    assert said.endswith("Surely worse: worse, flat.\n")
