"""Values that no stage could use are refused before the first one, by name."""

import os
import subprocess
import sys
from functools import partial

import pytest

from configs import collect as collect_configs
from configs import images as image_configs
from configs import locomotion as configs
from configs import maze2d as maze_configs
from configs import rl as rl_configs
from diffreward import data as d
from experiments import collect, launch
from experiments.images import miniature
from experiments.images import run as images
from experiments.locomotion import run as locomotion
from experiments.locomotion.data import make_data
from experiments.maze2d import run as maze2d
from experiments.rl import run as rl
from tests.data.test_registry import arrays


def changed(config, key, value):
    with config.unlocked():
        config.update_from_flattened_dict({key: value})
    return config


@pytest.mark.parametrize("key", ["episodes", "validation_episodes", "max_steps", "batch"])
@pytest.mark.parametrize("value", [0, -5])
def test_rollouts_need_episodes_and_steps(key, value):
    config = changed(configs.get_config("hopper,smoke"), f"evaluation.{key}", value)
    with pytest.raises(
        ValueError, match=rf"evaluation\.{key} is {value}; use [12] or more"
    ):
        locomotion.check(config)


@pytest.mark.parametrize("scales", [(), ("",), ("abc",), (0.5, "a"), (float("nan"),)])
def test_scales_are_numbers(scales):
    for module, config in (
        (locomotion, configs.get_config("hopper,smoke")),
        (maze2d, maze_configs.get_config("umaze,smoke")),
    ):
        with pytest.raises(ValueError, match=r"evaluation\.scales is \("):
            module.check(changed(config, "evaluation.scales", scales))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("steps", -5, r"steps is -5; use 1 or more"),
        ("steps", 0, r"steps is 0; use 1 or more"),
        ("batch_size", 0, "batch_size is 0"),
        ("batch_size", -4, "batch_size is -4"),
        ("batch_size", 13, r"batch_size=13 does not split .* 8 devices"),
        ("accumulate", 0, "accumulate is 0"),
        ("accumulate", 7, "does not split .* 7 slices"),
        ("steps_per_dispatch", 0, "steps_per_dispatch is 0"),
        ("checkpoint_every", 0, "checkpoint_every is 0"),
        ("devices", -1, "devices is -1"),
        ("devices", 500, "500 devices, 8 available"),
        ("learning_rate", 0.0, "learning_rate is 0"),
        ("learning_rate", float("nan"), "learning_rate is nan"),
        ("ema_decay", 2.0, "ema_decay is 2"),
        ("schedule", "cosin", "did you mean 'cosine'"),
        ("warmup", 99_999, "does not fit a run"),
        ("clip_norm", -1.0, "clip_norm is -1"),
    ],
)
@pytest.mark.parametrize("stage", ["base", "value"])
def test_every_training_section_is_checked(stage, key, value, words):
    config = changed(configs.get_config("hopper,smoke"), f"{stage}.{key}", value)
    with pytest.raises(ValueError, match=words):
        locomotion.check(config)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("seed", -1, "seed is -1"),
        ("seed", 2**31, "seed is 2147483648"),
        ("rewards.seeds", 0, r"rewards\.seeds is 0"),
        ("discriminator.seeds", -1, r"discriminator\.seeds is -1"),
        ("value.discount", 1.5, "discount is 1.5"),
        ("rewards.samples", 0, r"rewards\.samples is 0"),
        ("rewards.batch_size", 3, "split over 4 sets"),
        ("discriminator.batch_size", 1, r"discriminator\.batch_size"),
        ("rewards.window", 3, "does not divide"),
        ("rewards.window", 99, "or 0 for the whole horizon"),
        ("rewards.window", -1, "window is -1"),
        ("model.horizon", 0, r"model\.horizon is 0"),
        ("model.num_steps", 0, r"model\.num_steps is 0"),
        ("model.depth", -1, r"model\.depth is -1"),
        ("model.pinned", (0, 9), "step 9 is outside of a horizon of 8"),
        ("model.pinned", (), "put 0 in it"),
        ("evaluation.num_evaluations", 6, "more than the model.num_steps=5"),
        ("evaluation.paper_scale", float("inf"), "paper_scale is"),
        ("evaluation.paper_t_stops", (0, 5), "write levels from 0 to 4"),
        ("rewards.l2", 1e-4, "rewards.l2 would move the base's energy"),
        ("paper_rewards.clip_weights", -1, r"paper_rewards\.clip_weights is -1"),
        ("data.base_noise", float("nan"), "base_noise is nan; use a finite number"),
        ("evaluation.rows", ("energy",), "did you mean 'energies'"),
        ("data.transitions", 0, r"data\.transitions is 0"),
        ("data.limit", -1, r"data\.limit is -1"),
        ("data.base", "collect:hopper/exper", "unknown kind of data.base 'exper'"),
        ("data.base", "collect:hopper", "unknown kind of data.base ''"),
        ("data.base", "d4rl:walker2d-expert-v2", "data of walker2d, .* task is hopper"),
        ("data.expert", "minari:mujoco/halfcheetah/expert-v0", "data of halfcheetah"),
    ],
)
def test_what_locomotion_cannot_use_is_named(key, value, words):
    config = changed(configs.get_config("hopper,smoke"), key, value)
    with pytest.raises(ValueError, match=words):
        locomotion.check(config)


@pytest.mark.parametrize("key", ["base.steps", "experts.batch_size", "rewards.seeds"])
def test_mazes_are_checked_alike(key):
    with pytest.raises(ValueError, match=f"{key} is 0; use 1 or more"):
        maze2d.check(changed(maze_configs.get_config("umaze,smoke"), key, 0))


@pytest.fixture
def files(tmp_path):
    """A config that reads two files, the second of which is one's own to damage."""
    config = configs.get_config("hopper,smoke")
    for name in ("base", "expert"):
        path = tmp_path / f"{name}.hdf5"
        d.write_hdf5(path, arrays(rows=100), {})
        changed(config, f"data.{name}", str(path))
    return config


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: c.pop("rewards"), "rewards: missing or all zero"),
        (lambda c: c.update(arrays(rows=20)), "2 episodes leave a part"),
        (lambda c: c.update(arrays(17, 6, rows=100)), "this looks like halfcheetah"),
    ],
)
def test_unusable_files_do_not_bind_the_folder(files, tmp_path, damage, words):
    columns, path, workdir = arrays(rows=100), tmp_path / "expert.hdf5", tmp_path / "run"
    damage(columns)
    d.write_hdf5(path, columns, {})
    with pytest.raises(ValueError, match=rf"expert\.hdf5: .*{words}"):
        make_data(locomotion.build(files, workdir))
    assert not workdir.exists()
    other = tmp_path / "other.hdf5"
    d.write_hdf5(other, arrays(rows=100), {})
    changed(files, "data.expert", str(other))
    make_data(locomotion.build(files, workdir))
    assert (workdir / "data" / "report.json").exists()


HOLD = """
import sys, pathlib
from experiments import launch
with launch.claim(pathlib.Path(sys.argv[1])):
    print("claimed", flush=True)
    sys.stdin.read()
"""


def test_a_folder_has_one_process_at_a_time(tmp_path):
    workdir = tmp_path / "a b" / "Läufe"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workdir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"claimed\n"
        with (
            pytest.raises(ValueError, match="another process works in this folder"),
            launch.claim(workdir),
        ):
            pass
        other.kill()  # the lock goes with the process
        other.wait()
        with launch.claim(workdir):
            pass
    assert list(workdir.iterdir()) == []


def test_a_folder_made_for_nothing_goes_again(tmp_path):
    with launch.claim(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()
    assert not (tmp_path / "run").exists()
    with launch.claim(tmp_path / "run"):
        (tmp_path / "run" / "report.json").touch()
    assert (tmp_path / "run" / "report.json").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    for workdir in (path, path / "inside"):
        with (
            pytest.raises(ValueError, match=f"{workdir}: not a folder .* --workdir"),
            launch.claim(workdir),
        ):
            pass


def leaves(config, prefix=""):
    """Keys with dots, and values."""
    for key, value in config.items():
        if hasattr(value, "items"):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def nonsense(value):
    """What no key of a kind may be: NaN, minus one, words; None for free text."""
    if isinstance(value, bool | str):
        return None
    return {int: -1, float: float("nan")}.get(type(value), ("a",))


@pytest.mark.parametrize(
    ("module", "config", "section"),
    [
        (maze2d, partial(maze_configs.get_config, "umaze,smoke"), ""),
        (locomotion, partial(configs.get_config, "hopper,smoke"), ""),
        (rl, partial(rl_configs.get_config, "umaze,smoke"), ""),
        (collect, partial(collect_configs.get_config, "hopper,smoke"), ""),
        (images, partial(image_configs.get_config, "digits,smoke"), ""),
        (images, partial(image_configs.get_config, "sd,smoke"), "sd."),
        (miniature, partial(image_configs.get_config, "miniature,smoke"), "miniature."),
    ],
    ids=["maze2d", "locomotion", "rl", "collect", "digits", "sd", "miniature"],
)
def test_every_number_of_every_config_is_checked(module, config, section):
    """All, or those of one section: what else is there is checked beside another one."""
    wrong, own = [], {"sd.", "miniature."}
    for key, value in leaves(config()):
        bad, elsewhere = nonsense(value), key.startswith(tuple(own - {section}))
        if bad is None or elsewhere or not key.startswith(section):
            continue
        try:
            module.check(changed(config(), key, bad))
            wrong.append((key, "passed"))
        except ValueError as error:
            if key.rsplit(".", 1)[-1].rstrip("s") not in str(error):
                wrong.append((key, str(error)))
    assert wrong == []


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("ppo.num_envs", 0, r"ppo\.num_envs is 0; use 1 or more"),
        ("ppo.rollout", 0, r"ppo\.rollout is 0"),
        ("ppo.gamma", 1.5, r"ppo\.gamma is 1.5; use a number from 0 to 1"),
        ("ppo.learning_rate", 0.0, r"ppo\.learning_rate is 0.0; use a positive number"),
        ("seeds", 0, "^seeds is 0; use 1 or more"),
        ("window_levels", 33, r"window_levels=33 is more than .*num_steps=32"),
        ("goals", (), "goals is \\(\\); name different ones"),
        ("rewards", ("true", "true"), "name different ones"),
        ("run", "", "run is empty"),
    ],
)
def test_what_policies_cannot_use_is_named(key, value, words):
    with pytest.raises(ValueError, match=words):
        rl.check(changed(rl_configs.get_config("umaze,smoke"), key, value))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("digits.base.steps", 0, r"digits\.base\.steps is 0; use 1 or more"),
        ("digits.aligned.schedule", "cosin", "did you mean 'cosine'"),
        ("digits.requests", 3, r"digits\.requests is 3; .* use 10 or more"),
        ("digits.removed", (1.0,), r"digits\.removed must be"),
        ("records.levels", 11, r"records\.levels=11 .* digits\.num_steps=10"),
        ("rewards.widths", (), r"rewards\.widths is \(\); write positive whole"),
        ("audit.resamples", 0, r"audit\.resamples is 0"),
    ],
)
def test_what_digits_cannot_use_is_named(key, value, words):
    with pytest.raises(ValueError, match=words):
        images.check(changed(image_configs.get_config("digits,smoke"), key, value))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("clip_norm", float("inf"), r"base\.clip_norm is inf; use a finite number"),
        ("learning_rate", float("inf"), "learning_rate is inf; use a positive number"),
    ],
)
def test_numbers_are_finite(key, value, words):
    config = changed(maze_configs.get_config("umaze,smoke"), f"base.{key}", value)
    with pytest.raises(ValueError, match=words):
        maze2d.check(config)
