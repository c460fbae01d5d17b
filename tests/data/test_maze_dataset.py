import json

import h5py
import numpy as np
import pytest

import diffreward.data.maze_dataset as maze_dataset
import diffreward.data.maze_generate as maze_generate
from diffreward.data import (
    CLEARANCE,
    Recipe,
    collect,
    generate,
    load,
    make_maze,
    make_physics,
    read_hdf5,
    step,
    true_reward,
    wall_distance,
)

SETTINGS = {
    "maze": "umaze",
    "goals": (None, 3),
    "transitions": 900,
    "seed": 5,
    "shard_rows": 500,
    "recipe": Recipe(action_noise=0.1, hold=3),
    "progress": False,
}
FILES = ["base-0000", "base-0001", "goal3-0000", "goal3-0001"]


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def info(path, key) -> np.ndarray:
    with h5py.File(path) as file:
        item = file[f"infos/{key}"]
        assert isinstance(item, h5py.Dataset)
        return item[()]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maze")
    return folder, generate(folder, **SETTINGS, processes=1)


def test_files_and_manifest(written):
    folder, manifest = written
    names = [f"{name}.hdf5" for name in FILES]
    assert list(contents(folder / "umaze")) == [*names, "manifest.json"]
    assert json.loads((folder / "umaze" / "manifest.json").read_text()) == manifest
    for name, entry in manifest["shards"].items():
        episodes = read_hdf5(folder / "umaze" / name)
        assert len(episodes.rewards) == entry["rows"]
        assert len(episodes.starts) == entry["episodes"]
    for goal in (None, 3):
        rows = [e["rows"] for e in manifest["shards"].values() if e["goal"] == goal]
        assert sum(rows) >= SETTINGS["transitions"]


def test_two_processes_write_the_same_bytes_as_one(written, tmp_path):
    generate(tmp_path, **SETTINGS, processes=2)
    assert contents(tmp_path / "umaze") == contents(written[0] / "umaze")


def test_every_shard_has_its_own_stream(written):
    starts = [
        tuple(read_hdf5(written[0] / "umaze" / f"{name}.hdf5").observations[0])
        for name in FILES
    ]
    assert len(set(starts)) == len(FILES)


@pytest.mark.parametrize("name", FILES)
def test_replaying_the_recorded_actions_replays_the_states(written, name):
    """Actions are the executed ones, rewards those of the state after the action."""
    path = written[0] / "umaze" / f"{name}.hdf5"
    episodes = read_hdf5(path)
    goals = info(path, "goal")
    states = np.hstack([info(path, "qpos"), info(path, "qvel")])
    np.testing.assert_array_equal(states, episodes.observations)
    assert np.abs(episodes.actions).max() == 1  # clipping was at work
    maze = make_maze("umaze")
    physics = make_physics(maze)
    for start, length in zip(episodes.starts, episodes.lengths, strict=True):
        rows = slice(start, start + length)
        recorded, goal = episodes.observations[rows], goals[start]
        assert (goals[rows] == goal).all()
        states = [recorded[:1].astype(np.float64)]
        for action in episodes.actions[rows]:
            states.append(step(physics, states[-1], action[None]))
        replayed = np.concatenate(states)
        np.testing.assert_allclose(recorded, replayed[:-1], atol=1e-4)
        # Away from the rim of the goal, where rounding decides.
        clear = np.abs(np.linalg.norm(replayed[1:, :2] - goal, axis=1) - 0.45) > 1e-3
        paid = true_reward(replayed[1:], goal)
        np.testing.assert_array_equal(episodes.rewards[rows][clear], paid[clear])
        assert (wall_distance(maze, recorded[:, :2]) >= CLEARANCE - 1e-6).all()
        assert np.linalg.norm(replayed[-1, :2] - goal) < 0.3
    # The last test could not fail if the reward were the same one step earlier.
    goal_now = true_reward(episodes.observations, goals[0])
    if name.startswith("goal"):
        assert (goal_now != episodes.rewards).sum() >= len(episodes.starts) - 2


def test_the_base_wanders_and_the_expert_has_one_goal(written):
    def goals_of(name):
        goals = info(written[0] / "umaze" / f"{name}.hdf5", "goal")
        return np.unique(goals, axis=0)

    np.testing.assert_allclose(goals_of("goal3-0000"), make_maze("umaze").goals[2:3])
    assert len(goals_of("base-0000")) > 3


def test_load_joins_the_shards_of_one_dataset(written):
    folder, manifest = written
    episodes = load(folder, "umaze", 3)
    parts = [read_hdf5(folder / "umaze" / f"{name}.hdf5") for name in FILES[2:]]
    joined = np.concatenate([part.observations for part in parts])
    np.testing.assert_array_equal(episodes.observations, joined)
    assert episodes.timeouts.sum() == len(episodes.starts)
    assert not episodes.terminals.any()


def test_hold_and_frame_skip():
    maze = make_maze("umaze")
    physics = make_physics(maze)

    def walk(**kwargs):
        rng = np.random.default_rng(0)
        return collect(maze, physics, rng, 40, maze.goals[0], Recipe(**kwargs))

    plain, held, skipped = walk(), walk(hold=7), walk(frame_skip=4)
    kept = plain.lengths > 0
    assert kept.mean() > 0.8
    np.testing.assert_array_equal(held.lengths[kept], plain.lengths[kept] + 7)
    ends = plain.states[kept, plain.lengths[kept]]
    assert np.linalg.norm(ends[:, :2] - maze.goals[0], axis=1).max() < 0.1
    assert np.linalg.norm(ends[:, 2:], axis=1).max() < 0.5
    one_earlier = plain.states[kept, plain.lengths[kept] - 1]
    still_away = np.linalg.norm(one_earlier[:, :2] - maze.goals[0], axis=1) >= 0.1
    still_fast = np.linalg.norm(one_earlier[:, 2:], axis=1) >= 0.5
    assert (still_away | still_fast | (plain.lengths[kept] == 1)).all()
    ratio = skipped.lengths[kept] * 4 / plain.lengths[kept]
    assert 0.9 < np.median(ratio) < 1.2


def test_episodes_that_come_too_close_to_a_wall_are_discarded(monkeypatch):
    maze = make_maze("large")
    physics = make_physics(maze)

    def walk(clearance):
        monkeypatch.setattr(maze_generate, "CLEARANCE", clearance)
        rng = np.random.default_rng(0)
        return collect(maze, physics, rng, 60, None, Recipe(frame_skip=4))

    every, strict = walk(0.0), walk(0.25)
    closest = [
        wall_distance(maze, states[1 : length + 1, :2]).min()
        for states, length in zip(every.states, every.lengths, strict=True)
    ]
    expected = np.where(np.array(closest) >= 0.25, every.lengths, 0)
    np.testing.assert_array_equal(strict.lengths, expected)
    assert 0 < (expected == 0).sum() < 30


def test_a_killed_run_continues_and_finished_shards_stay(written, tmp_path, monkeypatch):
    write, done = maze_dataset.write_hdf5, []

    def dies_at_the_third(*args):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(args[0].name)
        write(*args)

    monkeypatch.setattr(maze_dataset, "write_hdf5", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path, **SETTINGS, processes=1)
    with pytest.raises(FileNotFoundError, match="goal 3 has 0 of 2 shards"):
        load(tmp_path, "umaze", 3)
    monkeypatch.undo()
    # One finished shard is damaged as well: it must be made again, the other not.
    folder = tmp_path / "umaze"
    (folder / done[1]).write_bytes(b"damaged")
    with pytest.raises(ValueError, match=rf"{done[1]}: differs from its hash"):
        load(tmp_path, "umaze", None)
    untouched = (folder / done[0]).stat().st_mtime_ns
    generate(tmp_path, **SETTINGS, processes=1)
    assert contents(folder) == contents(written[0] / "umaze")
    assert (folder / done[0]).stat().st_mtime_ns == untouched


def test_goals_can_be_added_later(written, tmp_path):
    for goals in ((3,), (None,)):
        generate(tmp_path, **{**SETTINGS, "goals": goals}, processes=1)
    assert contents(tmp_path / "umaze") == contents(written[0] / "umaze")


def test_a_folder_with_other_parameters_is_refused(written):
    before = contents(written[0] / "umaze")
    with pytest.raises(ValueError, match="holds data with seed 5, asked for 6"):
        generate(written[0], **{**SETTINGS, "seed": 6})
    assert contents(written[0] / "umaze") == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maze": "tiny"}, "unknown maze 'tiny'"),
        ({"goals": (9,)}, "goal 9 is not None or in 1 to 8"),
        ({"transitions": 0}, "transitions 0 must be at least 1"),
        ({"recipe": Recipe(frame_skip=0)}, "frame_skip 0 must be at least 1"),
        ({"recipe": Recipe(hold=-1)}, "hold -1 must be at least 0"),
        (
            {"recipe": Recipe(max_steps=1), "transitions": 30_000, "shard_rows": 30_000},
            r"base-0000.hdf5: \d+ of \d+ episodes reached.*raise max_steps",
        ),
    ],
)
def test_bad_arguments_leave_nothing_behind(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        generate(tmp_path, **{**SETTINGS, **change}, processes=1)
    assert not list(tmp_path.rglob("*.*"))


def test_load_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="run generate first"):
        load(tmp_path, "open", None)
