"""The leaderboard: tables from records, stages that are not run twice, clear mistakes."""

import json

import jax
import numpy as np
import pytest

from configs import leaderboard as configs
from diffreward.data import make_maze
from diffreward.data.episodes import Episodes
from experiments import leaderboard, leaderboard_maze


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
    first = leaderboard.main(tiny, tmp_path)
    rows = first["pairs"]["gaussians_equal_cov"]
    # The scores of two Gaussians are affine: the line integral is exact.
    assert rows["line_integral"]["gradient_error"] < 1e-3
    assert rows["discriminator"]["gradient_error"] > 0.1
    assert rows["discriminator"]["evaluations"] == 2 * 8
    assert rows["line_integral"]["evaluations"] == 0
    squared = rows["discriminator"]["gradient_error"] ** 2
    assert rows["discriminator"]["gradient_error_squared"] == pytest.approx(squared)
    page = (tmp_path / "report.md").read_text()
    assert f"{100 * rows['discriminator']['gradient_error']:.2f} ±" in page

    def never(*_args, **_kw):
        raise AssertionError("fitted twice")

    monkeypatch.setattr(leaderboard.extract, "fit", never)
    assert leaderboard.main(tiny, tmp_path) == json.loads(
        (tmp_path / "report.json").read_text()
    )
    assert leaderboard.main(tiny, tmp_path)["pairs"] == first["pairs"]
    with tiny.unlocked():
        tiny.training.steps = 3
    with pytest.raises(leaderboard.report.StaleRunError, match="steps was 2, now 3"):
        leaderboard.main(tiny, tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("pairs", ("gausians",), "did you mean 'gaussians'"),
        ("extractors", ("loss_gap:elb",), "did you mean 'loss_gap:elbo'"),
        ("samples", 1, "samples must be at least 2, got 1"),
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
        name, settings = leaderboard.settings_of(config, row)
        assert name in leaderboard.extract.EXTRACTORS
        assert settings.steps == config.training.steps
        if ":" in row:
            assert settings.weighting == row.split(":")[1]
    assert {r.split(":")[0] for r in leaderboard.ROWS} == set(
        leaderboard.extract.EXTRACTORS
    )


def test_reward_of_windows_is_minus_the_mean_distance_to_the_goal():
    goal = make_maze("umaze").goals[leaderboard_maze.GOAL]
    track = goal + np.array([[3.0, 4.0], [0.0, 0.0], [0.0, 1.0]])
    ends = np.array([False, False, True])
    rows = np.hstack([track, track])
    episodes = Episodes.from_arrays(rows, np.zeros((3, 2)), timeouts=ends)
    windows, rewards = leaderboard_maze.labelled(episodes, 2)
    assert windows.shape == (2, 2, 2)
    np.testing.assert_allclose(rewards, [-2.5, -0.5], rtol=1e-6)
