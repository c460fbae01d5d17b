"""The whole experiment on its smoke preset, with thresholds."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import maze2d as configs
from diffreward import data as d
from diffreward.report import StaleRunError
from diffreward.steer import follow_plans
from experiments import report as collect
from experiments.maze2d import data, evaluate
from experiments.maze2d import run as maze2d


@pytest.fixture(scope="module")
def config():
    config = configs.get_config("umaze,smoke")
    with config.unlocked():
        for stage in ("base", "experts", "rewards", "window_rewards"):
            config[stage].devices = 1  # what eight share is tested with the trainer
    return config


@pytest.fixture(scope="module", autouse=True)
def _optax_promotion():
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("maze2d")
    return workdir, maze2d.main(config, workdir)


def test_rewards_are_found(run):
    summary = run[1]["summary"]
    assert summary["goals_recovered"] == 2
    assert summary["auroc"] > 0.8
    assert summary["correlation"] > 0.8
    reached = summary["reached"]
    assert reached[summary["steered_name"]] >= 2 * reached["unsteered"] + 0.1
    assert summary["fvu"] < 0.3
    # Counting beside it, and what is no matter of the two classes being far apart.
    assert summary["goals_counted"] == 2
    assert 0.7 < summary["accuracy"] <= 1
    assert summary["correlation_in_base"] > 0.5
    assert 0.2 < summary["slope"] < 1.2  # few steps shrink a reward; the sign is right
    assert summary["progress_spearman"] > 0


def test_plans_that_are_made_anew_begin_where_the_mass_has_got_to(config):
    own = config.copy_and_resolve_references()
    with own.unlocked():
        own.maze, own.evaluation.replan = "open", 5
    run = maze2d.build(own, Path("never written"))
    rng, horizon = np.random.default_rng(0), own.model.horizon
    scale = np.array([1.0, 1.0, 2.0, 1.5, 3.0, 0.5], np.float32)
    normaliser = d.Normaliser(np.full(6, 0.25, np.float32), scale)
    goal, seen = run.maze.goals[0], []
    known = np.zeros((7, horizon, 6), np.float32)
    known[:, 0, 2:4] = (d.sample_free(run.maze, rng, 7) - 0.25) / scale[2:4]

    def plans_of(known, turn):
        # Straight to the goal, ever later than the rest of the time: one plan alone
        # would stop on the way.
        seen.append((turn, known[:, 0, 2:] * scale[2:] + 0.25))
        start = seen[-1][1][:, None, :2]
        share = np.minimum(np.arange(horizon) / (2 * horizon), 1)[None, :, None]
        rows = np.zeros((7, horizon, 6), np.float32)
        rows[:, :, 2:4] = (start + share * (goal - start) - 0.25) / scale[2:4]
        return rows

    last = evaluate.replan(run, normaliser, plans_of, known)
    turns = -(-(horizon - 1) // 5)
    assert [turn for turn, _ in seen] == list(range(turns))
    away = [np.linalg.norm(state[:, :2] - goal, axis=1) for _, state in seen]
    assert np.all(np.diff(away, axis=0) < 0.05)
    assert np.all(np.linalg.norm(last[:, :2] - goal, axis=1) < away[0])
    # The same, step by step: velocities are carried over and no step is left out.
    state, steps, seen = seen[0][1], 0, list(seen)
    for turn in range(turns):
        np.testing.assert_allclose(seen[turn][1], state, atol=1e-4)
        here = np.zeros((7, horizon, 6), np.float32)
        here[:, 0, 2:] = (state - 0.25) / scale[2:]
        rows = plans_of(here, turn)
        places = rows[:, :6, 2:4] * scale[2:4] + 0.25
        count = min(5, horizon - 1 - steps)
        state = follow_plans(run.maze, places[:, : count + 1], state, own.data.frame_skip)
        state, steps = state[:, -1], steps + count
    np.testing.assert_allclose(last, state, atol=1e-4)
    assert steps == horizon - 1


def test_every_record_and_figure_is_written(run):
    workdir, result = run
    for stage in ("data", "base", "experts", "rewards", "window_rewards", "evaluation"):
        for name in ("config", "inputs", "environment", "report"):
            assert (workdir / stage / f"{name}.json").exists()
    page = (workdir / "report.md").read_text()
    assert "\\" not in page
    figures = ("summary", "maps", "steering", "agreement", "fvu", "training")
    for name in (*figures, "progress", "tracks"):
        assert f"figures/{name}.png" in page
        assert (workdir / "figures" / f"{name}.png").stat().st_size > 5000
    assert json.loads((workdir / "report.json").read_text()) == result


def test_the_time_path_is_trained_and_reported(run):
    rows = [
        json.loads(line)
        for line in (run[0] / "rewards" / "metrics.jsonl").read_text().splitlines()
    ]
    last = [r for r in rows if "eval/fvu" in r][-1]
    assert min(last["eval/time_gradient"]) > 0
    assert max(last["eval/fvu"]) < 0.3
    assert last["eval/fvu_level/000"] < 0.3


def test_little_data_is_little_to_learn_from_but_not_to_be_judged_by(run, config):
    other = config.copy_and_resolve_references()
    with other.unlocked():
        other.data.limit = 500
    whole, part = (data.prepare(maze2d.build(c, run[0])) for c in (config, other))
    every = lambda prepared: [prepared.base, *prepared.experts]
    for a, b in zip(every(whole), every(part), strict=True):
        rows = {split: len(episodes.rewards) for split, episodes in b.items()}
        assert 500 <= rows["train"] < 500 + b["train"].lengths.max()
        for split in ("val", "test"):
            assert rows[split] == len(a[split].rewards)
    data.make_data(maze2d.build(other, run[0]))  # the same data, done before
    with pytest.raises(StaleRunError, match="limit was 'absent', now 500"):
        maze2d.main(other, run[0])


def test_a_finished_run_is_not_repeated_and_the_page_is_remade(run, config):
    workdir, result = run
    stamp = (workdir / "rewards" / "report.json").stat().st_mtime_ns
    (workdir / "report.md").unlink()
    assert maze2d.main(config, workdir) == result
    assert (workdir / "report.md").exists()
    assert (workdir / "rewards" / "report.json").stat().st_mtime_ns == stamp


def test_runs_are_collected_into_one_table_and_figure(run, tmp_path):
    workdir, result = run
    (tmp_path / "other").symlink_to(workdir)
    runs = [str(workdir), str(tmp_path / "other")]
    page = collect.main([*runs, "--out", str(tmp_path / "all")])
    rows = [r for r in page.read_text().splitlines() if r.startswith("| umaze")]
    assert len(rows) == 2
    cells = [c.strip() for c in rows[0].split("|")]
    summary = result["summary"]
    assert cells[2] == f"{summary['goals_recovered']}/2"
    assert cells[3] == f"{summary['goals_counted']}/2"
    assert float(cells[4]) == pytest.approx(summary["auroc"], rel=0.01)
    assert (page.parent / "maps.png").stat().st_size > 5000
    with pytest.raises(ValueError, match="unfinished"):
        collect.main([str(tmp_path / "unfinished"), "--out", str(tmp_path / "none")])
    assert not (tmp_path / "none").exists()


def test_other_settings_do_not_mix_with_old_results(run, config):
    other = config.copy_and_resolve_references()
    with other.unlocked():
        other.rewards.learning_rate = 1e-4
    with pytest.raises(StaleRunError, match=r"training\.learning_rate was 0\.001"):
        maze2d.main(other, run[0])


def test_an_interrupted_run_ends_with_the_same_report(run, config, tmp_path):
    """As after a kill: the last stage is lost, the stage before is half done."""
    workdir, result = run
    shutil.copytree(workdir, tmp_path / "again")
    for stage in ("rewards", "window_rewards"):
        folder = tmp_path / "again" / stage
        (folder / "report.json").unlink()
        for step in sorted(folder.glob("checkpoint/*"), key=lambda p: p.name):
            if step.name.isdigit() and int(step.name) == config[stage].steps:
                shutil.rmtree(step)
    shutil.rmtree(tmp_path / "again" / "evaluation")
    again = maze2d.main(config, tmp_path / "again")
    assert again == result


@pytest.mark.slow
def test_models_can_replace_the_data(run, config, tmp_path):
    """Algorithm 2: rewards trained on samples of the two models alone."""
    other = config.copy_and_resolve_references()
    with other.unlocked():
        other.rewards.source = "models"
    for stage in ("data", "base", "experts", "window_rewards"):
        shutil.copytree(run[0] / stage, tmp_path / stage)
    result = maze2d.main(other, tmp_path)
    assert result["summary"]["correlation"] > 0.8
    assert np.mean([g["fvu"] for g in result["goals"].values()]) < 0.4
