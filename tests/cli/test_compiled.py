"""Programs that were compiled are found again, where they may be kept."""

import os
import subprocess
import sys

import pytest

from diffreward.cli import compiled

PROGRAM = """
import sys
from diffreward.cli.guard import start_jax
start_jax(*sys.argv[1:])
import jax
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
jax.jit(lambda x: (x * 3).sum())(jax.numpy.ones(7)).block_until_ready()
print(sum(name.endswith("cache_hits") for name in events))
"""


def run(tmp_path, *arguments, **variables):
    """A child with a home of its own: what it found, and what it said."""
    names = (compiled.SETTING, "JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME")
    env = {k: v for k, v in os.environ.items() if k not in names}
    env |= {"HOME": str(tmp_path), **variables}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout), done.stderr


def test_the_second_run_compiles_nothing_and_the_first_one_says_where(tmp_path):
    hits, said = run(tmp_path)
    folder = tmp_path / ".cache" / "diffreward" / compiled.machine()
    assert hits == 0
    assert said.count("\n") == 1
    assert f"kept in {folder}; --cache off" in said
    assert any(folder.iterdir())
    hits, said = run(tmp_path)
    assert hits > 0
    assert said == ""


@pytest.mark.parametrize("way", ["flag", "variable"])
def test_it_can_be_moved_and_switched_off(tmp_path, way):
    place = tmp_path / "place"
    asked = lambda value: (
        ((value,), {}) if way == "flag" else ((), {compiled.SETTING: value})
    )
    arguments, variables = asked("off")
    assert run(tmp_path, *arguments, **variables) == (0, "")
    arguments, variables = asked(str(place))
    run(tmp_path, *arguments, **variables)
    assert any((place / compiled.machine()).iterdir())
    assert not (tmp_path / ".cache").exists()


def test_a_place_that_cannot_be_used_is_refused_only_if_it_was_named(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.delenv(compiled.SETTING)
    with pytest.raises(ValueError, match=r"--cache .*file cannot be used"):
        compiled.keep_programs(str(blocked))
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    compiled.keep_programs()


def test_jaxs_own_variable_is_obeyed(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "own"))
    compiled.keep_programs(str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


@pytest.mark.parity
def test_training_imports_no_pytorch(tmp_path):
    pytest.importorskip("torch", reason="where it is not installed, nothing can import it")
    program = (
        "import sys; from pathlib import Path; from diffreward.train.record import board\n"
        f"board(Path({str(tmp_path)!r}), 1).add_scalar('a', 1.0, 1)\n"
        "assert 'torch' not in sys.modules; import torch"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
