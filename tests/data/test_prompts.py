import json

import numpy as np
import pytest

from diffreward.data import read_prompts, slices

ROWS = [
    {"prompt": "a cat, sitting", "categories": "hate, violence", "n": "1"},
    {"prompt": 'a "dog"\nin two lines', "categories": "violence", "n": "2"},
]


def test_the_three_formats_agree(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps(ROWS))
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, ROWS)) + "\n\n")
    (tmp_path / "p.csv").write_text(
        "\ufeffprompt,categories,n\n"
        '"a cat, sitting","hate, violence",1\n'
        '"a ""dog""\nin two lines",violence,2\n',
        encoding="utf-8",
    )
    for name in ("p.json", "p.jsonl", "p.csv"):
        found = read_prompts(tmp_path / name)
        assert found.text == [r["prompt"] for r in ROWS], name
        assert found.columns == {
            "categories": ["hate, violence", "violence"],
            "n": ["1", "2"],
        }
    assert read_prompts(tmp_path / "p.csv", limit=1).text == ["a cat, sitting"]
    (tmp_path / "list.json").write_text('["one", "two"]')
    assert read_prompts(tmp_path / "list.json").text == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", "text\nhello\n", "entry 1 of .* has no 'prompt'; it has 'text'"),
        ("p.csv", "prompt,x\nhello,1\n,2\n", "entry 2 of"),
        ("p.csv", "prompt\n", "holds none"),
        ("p.json", '{"prompt": "x"}', "must hold a list, not dict"),
        ("p.json", "[1]", "entry 1 of .* is neither a text nor an object"),
        ("p.json", "[", "is not valid JSON"),
        ("p.jsonl", "{}x\n", "is not valid JSON"),
        ("p.txt", "hello", "is not a .csv, .json or .jsonl file"),
    ],
)
def test_what_holds_no_prompts_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_prompts(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_missing_and_a_binary_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.csv does not exist"):
        read_prompts(tmp_path / "none.csv")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not UTF-8"):
        read_prompts(tmp_path / "b.csv")


def test_slices_count_every_value_of_a_cell():
    columns = {
        "categories": ["hate, violence", "violence", "", "hate"],
        "id": ["1", "2", "3", "4"],
        "same": ["x"] * 4,
    }
    columns["kind"] = ["a", "b", "c", "c"]
    found = slices(columns, most=2)
    assert set(found) == {"categories"}  # kinds are too many, a constant too few
    assert set(slices(columns)) == {"categories", "kind"}  # an id slices nothing
    np.testing.assert_array_equal(found["categories"]["hate"], [0, 3])
    np.testing.assert_array_equal(found["categories"]["violence"], [0, 1])
