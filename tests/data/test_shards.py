import json

import numpy as np
import pytest

from diffreward import files
from diffreward.data import open_shards, read_shard, write_shards


def make(index):
    rng = np.random.default_rng(index)
    return {
        "x": rng.normal(size=(3, 2)).astype(np.float16),
        "n": np.arange(3) + index,
        "turned": rng.normal(size=(2, 5)).T,  # not contiguous
    }


def test_shards_are_read_as_written(tmp_path):
    write_shards(tmp_path / "s", 3, make)
    shards = open_shards(tmp_path / "s")
    assert shards.count == 3
    for i in range(3):
        found = read_shard(shards, i)
        for name, value in make(i).items():
            assert found[name].dtype == value.dtype
            np.testing.assert_array_equal(found[name], value)
    about = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert about["arrays_of_shard_0"]["x"] == ["float16", 3, 2]


def test_a_stopped_writer_goes_on_with_what_is_missing(tmp_path):
    def stopped(index):
        if index == 2:
            raise KeyboardInterrupt
        return make(index)

    with pytest.raises(KeyboardInterrupt):
        write_shards(tmp_path, 4, stopped)
    with pytest.raises(ValueError, match=r"manifest.json does not exist; run the command"):
        open_shards(tmp_path)
    asked = []

    def watched(index):
        asked.append(index)
        return make(index)

    write_shards(tmp_path, 4, watched)
    assert asked == [2, 3]
    np.testing.assert_array_equal(read_shard(open_shards(tmp_path), 2)["n"], make(2)["n"])


def test_damage_is_named(tmp_path):
    shards = write_shards(tmp_path, 2, make)
    path = shards.path(1)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match=r"shard-00001.safetensors is damaged"):
        read_shard(shards, 1)
    path.unlink()
    with pytest.raises(ValueError, match=r"lacks 1 of 2 shards, first 1"):
        open_shards(tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        read_shard(shards, 1)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest.json is damaged"):
        open_shards(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "other", "count": 2}')
    with pytest.raises(ValueError, match="no manifest of format|not a manifest of format"):
        open_shards(tmp_path)


def test_two_processes_share_the_shards(tmp_path, monkeypatch):
    """Each makes its own, also the one that writes nothing else."""
    make = lambda i: {"x": np.full(3, i)}
    made, waited = {0: [], 1: []}, []
    monkeypatch.setattr("jax.process_count", lambda: 2)
    monkeypatch.setattr("diffreward.processes.wait", waited.append)

    def run(process):
        monkeypatch.setattr("jax.process_index", lambda: process)
        monkeypatch.setattr(files.owner, "_follows", process > 0)
        watched = lambda i: made[process].append(i) or make(i)
        return write_shards(tmp_path / "two", 5, watched, together=True)

    with pytest.raises(ValueError, match="does not exist"):
        run(1)  # shard 0 is another's; waiting was left out
    run(0)
    assert made == {0: [0, 2, 4], 1: [1, 3]}
    assert waited == ["shards of two"] * 2
    shards = open_shards(tmp_path / "two")
    assert [read_shard(shards, i)["x"][0] for i in range(5)] == list(range(5))
