"""What is refused before anything is read, and the surroundings of a process."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from diffreward.cli import main
from diffreward.cli.main import NORMALISERS
from diffreward.cli.samples import NORMALISERS as KNOWN


def refused(capsys, *argv):
    assert main([str(a) for a in argv]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    return said


REQUIRED = ("extract", "--base", "b", "--expert", "e", "--data", "d.npy")
IMPOSSIBLE = [
    ("--steps", "0"),
    ("--steps", "1.5"),
    ("--batch-size", "-1"),
    ("--width", "0"),
    ("--depth", "100000000"),
    ("--test-samples", "2"),
    ("--horizon", "0"),
    ("--learning-rate", "nan"),
    ("--learning-rate", "-1"),
    ("--seed", "-1"),
    ("--seed", str(2**32)),
    ("--pin-first", "-1"),
    ("--normaliser", "none\x1b[2J"),
    ("--base", ""),
    ("--base", "~nobody-of-this-name/x"),
    ("--no-such-option", "1"),
]


@pytest.mark.parametrize(("option", "value"), IMPOSSIBLE)
def test_impossible_values_are_refused_by_name(option, value, capsys):
    said = refused(capsys, *REQUIRED, "--out", "o", option, value)
    assert option in said
    assert "\x1b" not in said


def test_other_commands_check_theirs(capsys):
    assert "--noises" in refused(capsys, "score", "c", "d.npy", "--noises", 0)
    assert "--seed" in refused(
        capsys, "detect", "--model", "m", "--data", "d", "--seed", -1
    )
    assert "--normaliser" in refused(
        capsys, "detect", "--model", "m", "--data", "d", "--normaliser", "x"
    )
    assert NORMALISERS == KNOWN


def test_results_never_take_the_place_of_inputs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("b", "e", "c"):
        Path(name).mkdir()
    np.save("d.npy", np.zeros(3))
    os.link("d.npy", "same.npy")
    for out in ("b", "b/inside", "d.npy", ".", "..", "/", "d.npy/x"):
        refused(capsys, *REQUIRED, "--out", out)
    for out in ("d.npy", "same.npy", "c", "c/x.npy", "x.npz", "x", "d.npy/x.npy"):
        refused(capsys, "score", "c", "d.npy", "--out", out)
    Path("o.training").mkdir()
    np.save("o.training/d.npy", np.zeros(3))
    refused(capsys, *REQUIRED, "--data", "o.training/d.npy", "--out", "o")
    assert sorted(os.listdir()) == ["b", "c", "d.npy", "e", "o.training", "same.npy"]
    assert np.load("d.npy").shape == (3,)


def test_home_is_meant_after_an_equals_sign_too(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    said = refused(capsys, "detect", "--model=~/m", "--data=~/none.npy")
    assert f"{tmp_path}/none.npy" in said


def run(*argv, **environment):
    return subprocess.run(
        [sys.executable, "-m", "diffreward", *argv],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_notebooks_and_machines_without_the_device(tmp_path):
    done = run("report", str(tmp_path), MPLBACKEND="module://none.of.these")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "is no reward card" in done.stderr
    done = run("report", str(tmp_path), JAX_PLATFORMS="cuda")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "error: JAX_PLATFORMS=cuda" in done.stderr


def test_help_imports_nothing_and_may_be_cut():
    code = (
        "import sys; from diffreward.cli import main\n"
        "try: main(['--help'])\n"
        "finally: assert not {'jax', 'matplotlib', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "diffreward", "--help"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert done.stderr == ""


def test_memory_is_one_line(monkeypatch, capsys):
    from diffreward.cli import commands

    def exhaust(_):
        raise MemoryError

    monkeypatch.setattr(commands, "report", exhaust)
    assert "not enough memory" in refused(capsys, "report", "x")
