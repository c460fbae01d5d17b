"""Data of saved policies, made again."""

import json

import numpy as np
import pytest

from diffreward.data import (
    LOCOMOTION,
    collect_again,
    episodes_of,
    read_index,
    save_policy,
)
from diffreward.data.snapshots import KINDS, snapshot_folder
from tests.data.test_locomotion import policy


@pytest.fixture
def folder(tmp_path):
    names = [f"policy_{i}.safetensors" for i in range(4)]
    for i, name in enumerate(names):
        save_policy(tmp_path / name, policy(seed=i), {})
    index = {
        "policies": [{"file": n, "step": i, "score": i} for i, n in enumerate(names)],
        "medium": names[2],
        "expert": names[3],
    }
    (tmp_path / "index.json").write_text(json.dumps(index))
    return tmp_path


def collect(folder, kind="medium-replay", **options):
    return collect_again("hopper", kind, transitions=90, seed=3, folder=folder, **options)


def test_the_medium_replay_is_every_policy_up_to_the_medium_one(folder):
    stream = collect(folder, processes=1)
    assert 90 <= len(stream["rewards"]) < 90 + 3 * 60
    (folder / "policy_3.safetensors").unlink()  # the expert takes no part
    again = collect(folder, processes=1)
    np.testing.assert_array_equal(stream["observations"], again["observations"])
    episodes_of(stream)


def test_the_expert_is_the_best_policy_alone(folder):
    for i in range(3):
        (folder / f"policy_{i}.safetensors").unlink()
    assert len(collect(folder, "expert", processes=1)["rewards"]) >= 90


def test_medium_data_are_the_first_medium_policy_alone(folder):
    for i in (0, 1, 3):
        (folder / f"policy_{i}.safetensors").unlink()
    assert len(collect(folder, "medium", processes=1)["rewards"]) >= 90


def test_the_number_of_processes_changes_nothing(folder):
    one, two = (collect(folder, processes=n) for n in (1, 2))
    for key, column in one.items():
        np.testing.assert_array_equal(column, two[key])


def test_unknown_kinds_and_tasks_are_refused(folder):
    with pytest.raises(ValueError, match=r"'best'; .* expert, medium, medium-replay"):
        collect(folder, "best")
    with pytest.raises(ValueError, match="no policies for 'ant'"):
        read_index("ant")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "is not valid JSON"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"[]", "TypeError"),
        (b"{}", "KeyError: 'policies'"),
        (b'{"policies": 3}', "TypeError"),
        (b'{"policies": [{"file": "a"}], "medium": "a"}', "KeyError: 'expert'"),
        (
            b'{"policies": [{"file": "a"}], "medium": "a", "expert": "b"}',
            "'b' is not among",
        ),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_index_is_named(folder, text, words, kind):
    (folder / "index.json").write_bytes(text)
    with pytest.raises(ValueError, match=rf"index\.json.*{words}"):
        collect(folder, kind, processes=1)


def test_a_policy_of_another_task_is_named(folder):
    save_policy(folder / "policy_3.safetensors", policy(obs_dim=17, act_dim=6), {})
    with pytest.raises(ValueError, match=r"policy_3\.safetensors: a policy for 17 obs"):
        collect(folder, "expert", processes=1)


@pytest.mark.parametrize("task", [t for t in LOCOMOTION if snapshot_folder(t).is_dir()])
def test_shipped_policies_are_whole_and_fit_their_task(task):
    index = read_index(task)
    files = {p.name for p in snapshot_folder(task).glob("*.safetensors")}
    assert {p["file"] for p in index["policies"]} == files
    assert {index["medium"], index["expert"]} <= files
    scores = {p["file"]: p["score"] for p in index["policies"]}
    assert scores[index["expert"]] == max(scores.values()) > scores[index["medium"]]
    assert "--config.steps=" in index["command"]
    for kind in KINDS:
        stream = collect_again(task, kind, transitions=1, seed=0, processes=1)
        assert episodes_of(stream).observations.shape[1] == LOCOMOTION[task].obs_dim


def test_shipped_policies_are_a_few_megabytes():
    folders = [snapshot_folder(task) for task in LOCOMOTION]
    sizes = [p.stat().st_size for f in folders if f.is_dir() for p in f.iterdir()]
    assert 0 < sum(sizes) < 8e6
