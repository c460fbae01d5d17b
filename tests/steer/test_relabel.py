"""Relabelled datasets: rewards against the per-episode route, files read back."""

import h5py
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.data import Episodes, Normaliser, load_minari, read_hdf5
from diffreward.steer.relabel import relabel, write_d4rl, write_minari
from diffreward.steer.stepwise import make_step_reward

LENGTHS = (7, 2, 5, 3)
NORMALISER = Normaliser(
    np.array([0.2, -0.3, 0.1], np.float32), np.array([1.5, 0.7, 2.0], np.float32)
)


def value(x):
    place = jnp.arange(1.0, x.size + 1).reshape(x.shape)
    return jnp.sum(jnp.sin(x) * place)


@pytest.fixture
def episodes():
    rng = np.random.default_rng(0)
    rows = sum(LENGTHS)
    ends = np.isin(np.arange(rows), np.cumsum(LENGTHS) - 1)
    first = np.arange(rows) < LENGTHS[0]
    return Episodes.from_arrays(
        rng.normal(size=(rows, 2)),
        rng.normal(size=(rows, 1)),
        rewards=np.ones(rows),
        terminals=ends & first,
        timeouts=ends & ~first,
        source="test",
    )


@pytest.mark.parametrize("share", ["last", "even"])
@pytest.mark.parametrize("batch_size", [4, 100])
def test_rewards_are_those_of_every_episode_alone(episodes, share, batch_size):
    out = relabel(episodes, value, NORMALISER, 3, share=share, batch_size=batch_size)
    one = make_step_reward(value, NORMALISER, 3, share)
    for start, length in zip(episodes.starts, episodes.lengths, strict=True):
        rows = slice(start, start + length)
        expected = one(
            jnp.asarray(episodes.observations[rows]), jnp.asarray(episodes.actions[rows])
        )
        np.testing.assert_allclose(out.rewards[rows], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(out.observations, episodes.observations)
    assert np.abs(out.rewards).max() > 0.1


def test_no_episode_long_enough_is_said(episodes):
    with pytest.raises(ValueError, match="longest episode has 7 steps.* window of 8"):
        relabel(episodes, value, NORMALISER, 8)


def test_d4rl_file_is_read_back_with_both_rewards(episodes, tmp_path):
    out = relabel(episodes, value, NORMALISER, 3)
    path = tmp_path / "x.hdf5"
    write_d4rl(path, out, env_rewards=episodes.rewards, about={"window": 3})
    back = read_hdf5(path)
    for name in ("observations", "actions", "rewards", "terminals", "timeouts", "starts"):
        np.testing.assert_array_equal(getattr(back, name), getattr(out, name))
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["env_rewards"], 1)
        assert file.attrs["window"] == 3


def test_minari_folder_is_read_back(episodes, tmp_path):
    out = relabel(episodes, value, NORMALISER, 3)
    path = write_minari(tmp_path, "maze/extracted-v0", out, description="d")
    back = load_minari("maze/extracted-v0", tmp_path)
    for name in ("observations", "actions", "rewards", "terminals", "timeouts", "starts"):
        np.testing.assert_array_equal(getattr(back, name), getattr(out, name))
    assert [p.name for p in path.parent.iterdir()] == ["data"]
    with pytest.raises(ValueError, match="already exists"):
        write_minari(tmp_path, "maze/extracted-v0", out)


def test_minari_itself_reads_the_folder(episodes, tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    write_minari(tmp_path, "maze/extracted-v0", episodes)
    dataset = minari.load_dataset("maze/extracted-v0")
    assert dataset.total_steps == sum(LENGTHS)
    for i, episode in enumerate(dataset.iterate_episodes()):
        rows = slice(episodes.starts[i], episodes.starts[i] + LENGTHS[i])
        np.testing.assert_array_equal(episode.actions, episodes.actions[rows])
        np.testing.assert_array_equal(
            episode.observations[:-1], episodes.observations[rows]
        )
        assert episode.terminations[-1] == (i == 0)


def test_a_failed_write_leaves_nothing(episodes, tmp_path):
    broken = episodes._replace(actions=episodes.actions[:3])
    with pytest.raises(Exception, match=r".*"):
        write_minari(tmp_path, "maze/x-v0", broken._replace(terminals=None))
    assert not list(tmp_path.rglob("*.hdf5"))
    assert not (tmp_path / "maze" / "x-v0" / "data").exists()
