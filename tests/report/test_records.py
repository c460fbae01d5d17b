import json

import numpy as np
import pytest

from diffreward.report import (
    StaleRunError,
    close_stage,
    open_stage,
    read_json,
    stage_digest,
    write_json,
)


def test_a_stage_is_skipped_only_when_it_has_finished(tmp_path):
    config = {"a": {"steps": 3, "rates": (0.1, 0.2)}}
    assert not open_stage(tmp_path, config)
    assert not open_stage(tmp_path, config)
    close_stage(tmp_path, {"x": np.float32(0.5), "y": np.arange(2)})
    assert open_stage(tmp_path, config)
    assert read_json(tmp_path / "report.json") == {"x": 0.5, "y": [0, 1]}
    assert {"python", "jax"} <= read_json(tmp_path / "environment.json").keys()


def test_other_settings_are_refused_with_the_difference(tmp_path):
    open_stage(tmp_path, {"a": {"steps": 3}, "b": 1})
    with pytest.raises(StaleRunError, match=r"a\.steps was 3, now 4"):
        open_stage(tmp_path, {"a": {"steps": 4}, "b": 1})
    with pytest.raises(StaleRunError, match="base was 'absent', now 'x'"):
        open_stage(tmp_path, {"a": {"steps": 3}, "b": 1}, {"base": "x"})
    assert read_json(tmp_path / "config.json") == {"a": {"steps": 3}, "b": 1}


def test_digest_depends_on_settings_and_inputs(tmp_path):
    digests = set()
    for i, (config, inputs) in enumerate(
        [({"a": 1}, {}), ({"a": 2}, {}), ({"a": 1}, {"b": "x"})]
    ):
        open_stage(tmp_path / str(i), config, inputs)
        digests.add(stage_digest(tmp_path / str(i)))
    assert len(digests) == 3


def test_writes_are_whole_or_nothing(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError, match="cannot write object"):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}


@pytest.mark.parametrize("content", [b"{", b'{"a": "\xff"}'])
def test_damaged_and_missing_files_are_named(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.json is not (valid JSON|UTF-8 text)"):
        read_json(tmp_path / "x.json")
    with pytest.raises(ValueError, match=r"y\.json does not exist"):
        read_json(tmp_path / "y.json")
