"""Damaged and hostile data files: a value or one line, never anything else."""

import json

import h5py
import numpy as np
import pytest

from diffreward.cli.samples import read_samples
from diffreward.data import (
    open_shards,
    read_arrays,
    read_hdf5,
    read_ogbench,
    read_prompts,
    read_shard,
    write_hdf5,
    write_shards,
)
from diffreward.data.minari import read_minari
from tests.data.test_ogbench import arrays as ogbench_arrays
from tests.fuzz.damage import damaged, outcome

ROWS = 30


def flat():
    rng = np.random.default_rng(0)
    return {
        "observations": rng.normal(size=(ROWS, 3)),
        "actions": rng.normal(size=(ROWS, 2)),
        "rewards": np.zeros(ROWS),
        "terminals": np.zeros(ROWS, bool),
        "timeouts": np.arange(ROWS) % 10 == 9,
    }


def minari(path):
    with h5py.File(path / "main_data.hdf5", "w") as file:
        for i in range(2):
            group = file.create_group(f"episode_{i}")
            group["observations/a"] = np.zeros((5, 2))
            group["actions"] = np.zeros((4, 1))
            group["rewards"] = np.zeros(4)
            group["terminations"] = np.zeros(4, bool)
            group["truncations"] = np.arange(4) == 3


PROMPTS = [{"prompt": f"a cat, number {i}", "n": i} for i in range(5)]
CSV = "prompt,n\n" + "".join(f'"a cat, number {i}",{i}\n' for i in range(5))
KINDS = {
    "a.npy": (lambda p: np.save(p, np.ones((6, 4))), read_samples),
    "a.npz": (lambda p: np.savez_compressed(p, x=np.ones((6, 4))), read_arrays),
    "ogbench.npz": (lambda p: np.savez(p, **ogbench_arrays()), read_ogbench),
    "a.hdf5": (lambda p: write_hdf5(p, flat(), {}), read_hdf5),
    "main_data.hdf5": (lambda p: minari(p.parent), lambda p: read_minari(p.parent)),
    "p.csv": (lambda p: p.write_text(CSV), read_prompts),
    "p.json": (lambda p: p.write_text(json.dumps(PROMPTS)), read_prompts),
    "p.jsonl": (lambda p: p.write_text("\n".join(map(json.dumps, PROMPTS))), read_prompts),
    "shard-00000.safetensors": (
        lambda p: write_shards(p.parent, 1, lambda _: flat()),
        lambda p: read_shard(open_shards(p.parent), 0),
    ),
    "manifest.json": (
        lambda p: write_shards(p.parent, 1, lambda _: flat()),
        lambda p: open_shards(p.parent),
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path, name):
    make, read = KINDS[name]
    path = tmp_path / name
    make(path)
    read(path)
    whole = path.read_bytes()
    refused = 0
    for what, data in damaged(whole, np.random.default_rng(len(name)), 30):
        path.write_bytes(data)
        try:
            refused += outcome(lambda: read(path), path) is not None
        except AssertionError as error:
            raise AssertionError(f"{what}: {error}") from error
    assert refused >= 6


def other_file(tmp_path):
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["o"] = np.full((ROWS, 3), 7, "f4")
    (tmp_path / "key.pem").write_bytes(b"secret  " * ROWS * 3)


def storage(file, folder):
    where = [(str(folder / "key.pem"), 0, ROWS * 12)]
    file.create_dataset("observations", (ROWS, 3), "f4", external=where)


def link(file, folder):
    file["observations"] = h5py.ExternalLink(str(folder / "other.hdf5"), "o")


def soft_link(file, folder):
    file["way"] = h5py.ExternalLink(str(folder / "other.hdf5"), "/")
    file["observations"] = h5py.SoftLink("/way/o")


def virtual(file, folder):
    layout = h5py.VirtualLayout((ROWS, 3), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "other.hdf5"), "o", (ROWS, 3))
    file.create_virtual_dataset("observations", layout)


def compound(file, folder):
    del folder
    file["observations"] = np.zeros(ROWS, [("a", "f4"), ("b", "f4")])


def words(file, folder):
    del folder
    file["observations"] = ["x"] * ROWS


def never_written(file, folder):
    del folder
    file.create_dataset("observations", (40_000_000, 10), "f4", chunks=(16384, 10))


@pytest.mark.parametrize(
    ("add", "says"),
    [
        (storage, "lies in other files"),
        (link, "is a link"),
        (soft_link, "is a link"),
        (virtual, "lies in other files"),
        (compound, "expected numbers"),
        (words, "expected numbers"),
        (never_written, "asks for 1,526 MiB"),
    ],
)
def test_an_hdf5_file_gives_its_own_numbers_only(tmp_path, add, says):
    other_file(tmp_path)
    path = tmp_path / "x.hdf5"
    with h5py.File(path, "w") as file:
        for key, value in flat().items():
            if key != "observations":
                file[key] = value
        add(file, tmp_path)
    message = outcome(lambda: read_hdf5(path), path)
    assert message is not None
    assert says in message


def test_files_of_the_first_version_are_cut_where_the_task_ends(tmp_path):
    rows = 2700
    given = {
        "observations": np.zeros((rows, 11)),
        "actions": np.zeros((rows, 3)),
        "terminals": np.arange(rows) == rows - 1,
    }
    write_hdf5(tmp_path / "hopper_medium-v0.hdf5", given, {})
    write_hdf5(tmp_path / "mine.hdf5", given, {})
    found = read_hdf5(tmp_path / "hopper_medium-v0.hdf5")
    assert found.lengths.tolist() == [1000, 1000, 700]
    assert read_hdf5(tmp_path / "mine.hdf5", limit=1500).lengths.tolist() == [1500, 1200]
    with pytest.raises(ValueError, match=r"mine\.hdf5: timeouts: missing"):
        read_hdf5(tmp_path / "mine.hdf5")


@pytest.mark.parametrize("mark", ["\u2028", "\x85", "\x0c", "\u2029", "\x1c", "\x0b"])
def test_only_ends_of_lines_end_a_prompt(tmp_path, mark):
    want = [f"a red{mark}fox", "a house"]
    (tmp_path / "p.csv").write_text(f"prompt,n\r\n{want[0]},1\r\n\r\n{want[1]},2\r\n")
    rows = [json.dumps({"prompt": t, "n": 1}, ensure_ascii=False) for t in want]
    (tmp_path / "p.jsonl").write_text("\n".join(rows))
    for name in ("p.csv", "p.jsonl"):
        assert read_prompts(tmp_path / name).text == want


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prompt,n\nportrait, oil, 4k,art\n", "line 2: 4 cells for 2 columns"),
        ("prompt,n\nhouse\n", "line 2: 1 cells for 2 columns"),
        ("prompt,prompt\na,b\n", "line 1: two columns have one name"),
        ('prompt,n\n"a photo of,1\n' + "b,2\n" * 50, "is a quote left open"),
        ('prompt,n\n"a"b,1\n', "line 2"),
        ("prompt,n\na\0b,1\n", "p.csv"),
    ],
)
def test_a_table_that_loses_words_is_refused(tmp_path, text, says):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(ValueError, match=says):
        read_prompts(tmp_path / "p.csv")
    (tmp_path / "p.csv").write_text("prompt\n" + "a " * 200_000 + "\n")
    assert len(read_prompts(tmp_path / "p.csv").text[0]) == 400_000


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("p.jsonl", '{"prompt": "a", "prompt": "b"}', "line 1 .* one name twice"),
        ("p.json", '[{"prompt": "a", "prompt": "b"}]', "one name twice"),
        ("p.json", '["a \\ud800 b"]', "no 'prompt'"),
        ("p.json", "[" * 100_000, "p.json"),
    ],
)
def test_json_that_loses_words_is_refused(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=says):
        read_prompts(tmp_path / name)


def test_json_keeps_every_column_and_all_of_its_values(tmp_path):
    rows = [{"prompt": "a", "c": ["x", "y"]}, {"prompt": "b", "d": 1, "c": None}]
    (tmp_path / "p.json").write_text(json.dumps(rows))
    found = read_prompts(tmp_path / "p.json").columns
    assert found == {"c": ["x, y", ""], "d": ["", "1"]}


def test_a_group_of_many_names_is_not_walked_for_each(tmp_path):
    minari(tmp_path)
    path = tmp_path / "main_data.hdf5"
    with h5py.File(path, "a") as file:
        group = file["episode_0/observations"]
        for level in "xyz":
            inner = group.create_group(f"{level}0")
            for i in range(1, 60):
                group[f"{level}{i}"] = inner
            group = inner
        group["rows"] = np.zeros((5, 1))
    message = outcome(lambda: read_minari(tmp_path), path)
    assert message is not None
    assert "are one group" in message


@pytest.mark.parametrize("value", [2**53 + 1, -(2**24) - 1, 2**63 - 1])
def test_whole_numbers_that_float32_may_round_are_refused(tmp_path, value):
    np.save(tmp_path / "a.npy", np.full((4, 2), value))
    with pytest.raises(ValueError, match="float32 cannot hold"):
        read_samples(tmp_path / "a.npy")
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for key, rows in flat().items():
            file[key] = np.full((ROWS, 3), value) if key == "observations" else rows
    with pytest.raises(ValueError, match="observations: int64 .* cannot hold"):
        read_hdf5(tmp_path / "a.hdf5")


def test_demonstrations_may_be_longer_than_the_environment_allows(tmp_path):
    given = {
        "observations": np.zeros((400, 3)),
        "actions": np.zeros((400, 2)),
        "timeouts": np.arange(400) % 200 == 199,
    }
    write_hdf5(tmp_path / "pen-human-v1.hdf5", given, {})
    assert read_hdf5(tmp_path / "pen-human-v1.hdf5").lengths.tolist() == [200, 200]
    write_hdf5(tmp_path / "pen-expert-v1.hdf5", given, {})
    with pytest.raises(ValueError, match="ends them after 100"):
        read_hdf5(tmp_path / "pen-expert-v1.hdf5")


@pytest.mark.parametrize("text", ['{"observation_space": ', "[]"])
def test_metadata_that_cannot_be_read_are_not_passed_over(tmp_path, text):
    minari(tmp_path)
    (tmp_path / "metadata.json").write_text(text)
    with pytest.raises(ValueError, match=r"metadata\.json"):
        read_minari(tmp_path)
