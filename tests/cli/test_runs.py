"""Runs of extract: whose they are, how they go on, what they leave."""

import random
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from diffreward import files
from diffreward.card import load
from diffreward.cli import commands, main
from diffreward.diffusion import cosine
from diffreward.extract import training
from tests.cli.test_cli import arguments, checkpoint


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Two experts of one base, and samples."""
    folder = tmp_path_factory.mktemp("runs")
    checkpoint(folder / "base", cosine(6))
    checkpoint(folder / "expert", cosine(6), change=0.5)
    checkpoint(folder / "other", cosine(6), change=-0.5)
    x = np.random.default_rng(0).normal(size=(60, 8, 5)).astype(np.float32)
    np.save(folder / "data.npy", x)
    return folder


class Quick:
    """Measures that take no time."""

    measures, limits = {"samples": 6}, ["Not measured."]

    def draw(self, folder):
        files.write_bytes(folder / "measures.png", b"png")
        return folder / "measures.png"


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "measure", lambda *_, **__: Quick())
        yield


@pytest.fixture(scope="module")
def unbroken(inputs, quick):
    """The card of a run that nothing disturbed."""
    assert main([*arguments(inputs, inputs / "whole"), "--steps", "150"]) == 0
    return bits(inputs / "whole")


def bits(folder):
    """Every byte of a card."""
    found = [p for p in folder.rglob("*") if p.is_file()]
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


def stop(*_, **__):
    raise KeyboardInterrupt


def test_an_interrupted_run_goes_on_with_the_same_bits(
    inputs, unbroken, tmp_path, monkeypatch, capsys
):
    argv = [*arguments(inputs, tmp_path / "card"), "--steps", "150"]
    monkeypatch.setattr(training, "SAVE_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr("diffreward.train.record.Recorder.advance", stop_at(100))
        assert main(argv) == 130
    assert "interrupted; the same command goes on" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(commands, "measure", stop)
        assert main(argv) == 130
    assert "from step 50" in capsys.readouterr().err
    assert main(argv) == 0
    assert bits(tmp_path / "card") == unbroken
    assert [p.name for p in tmp_path.iterdir()] == ["card"]


def stop_at(step):
    def advance(self, now, loss):
        if now >= step:
            stop()

    return advance


def test_steps_of_another_run_are_refused_or_given_up(
    inputs, tmp_path, monkeypatch, capsys
):
    argv = arguments(inputs, tmp_path / "card")
    with monkeypatch.context() as patch:
        patch.setattr(commands, "measure", stop)
        assert main(argv) == 130
    for change, named in (
        (["--expert", inputs / "other"], "models expert sha256 was"),
        (["--learning-rate", "0.1"], "settings learning_rate was 0.001, now 0.1"),
        (["--normaliser", "gaussian"], "data base was"),
        (["--seed", "3"], "was"),
    ):
        assert main([*argv, *map(str, change)]) == 1
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("error: ")
        assert named in said
        assert "--restart" in said
    assert main([*argv, "--expert", str(inputs / "other"), "--restart"]) == 0
    assert main(arguments(inputs, tmp_path / "fresh", "--expert", inputs / "other")) == 0
    # Only where the run lay may differ.
    assert bits(tmp_path / "card") == bits(tmp_path / "fresh")


def test_a_method_of_two_runs_goes_on_from_its_first_and_keeps_to_itself(
    inputs, tmp_path, monkeypatch, capsys
):
    method = "residual_alignment"
    more = ["--method", method, "--steps", "60"]
    assert main([*arguments(inputs, tmp_path / "whole"), *more]) == 0
    argv = [*arguments(inputs, tmp_path / "card"), *more]
    with monkeypatch.context() as patch:
        patch.setattr(training, "SAVE_SECONDS", 0.0)
        patch.setattr("diffreward.train.record.Recorder.advance", stop_at(60))
        assert main(argv) == 130
    assert main(arguments(inputs, tmp_path / "card")) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"extractor was {method}, now gradient_alignment" in said
    assert "--restart" in said
    assert main(argv) == 0
    assert "from step" in capsys.readouterr().err
    assert bits(tmp_path / "card") == bits(tmp_path / "whole")
    card = load(tmp_path / "card")
    assert (card.extractor, card.units) == (method, "nats")
    assert type(card.network.net).__name__ == "EnergyDifference"


def test_a_card_that_was_written_before_the_kill_is_finished(
    inputs, tmp_path, monkeypatch, capsys
):
    argv = arguments(inputs, tmp_path / "card")
    with monkeypatch.context() as patch:
        patch.setattr(commands.files, "discard", stop)
        assert main(argv) == 130
    made = bits(tmp_path / "card")
    assert main([*argv, "--expert", str(inputs / "other")]) == 1
    assert "card exists; choose another --out" in capsys.readouterr().err
    assert main(argv) == 0
    assert bits(tmp_path / "card") == made
    assert [p.name for p in tmp_path.iterdir()] == ["card"]


def test_folders_of_others_stay_and_two_processes_are_kept_apart(inputs, tmp_path, capsys):
    argv = arguments(inputs, tmp_path / "card")
    work = tmp_path / "card.training"
    work.mkdir()
    with files.claim(work):
        assert main(argv) == 1
    assert "another process works in this folder" in capsys.readouterr().err
    (work / "mine.txt").write_text("precious")
    assert main(argv) == 1
    assert "was not made by this version" in capsys.readouterr().err
    assert (work / "mine.txt").read_text() == "precious"


def test_equal_models_and_too_few_samples_are_told_before_the_training(
    inputs, tmp_path, capsys
):
    argv = arguments(inputs, tmp_path / "card", "--expert", inputs / "base")
    assert main(argv) == 1
    assert "base and expert are the same model" in capsys.readouterr().err
    np.save(tmp_path / "few.npy", np.load(inputs / "data.npy")[:20])
    argv = arguments(inputs, tmp_path / "card", "--data", tmp_path / "few.npy")
    assert main(argv) == 1
    assert "2 of its episodes are held out, measuring needs 3" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["few.npy"]


def test_divergence_is_one_line_and_leaves_nothing(inputs, tmp_path, capsys):
    argv = [*arguments(inputs, tmp_path / "card"), "--learning-rate", "1e30"]
    assert main(argv) == 1
    assert "diverged at step" in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


RUN = (
    "import sys; from diffreward.extract import training; training.SAVE_SECONDS = 0.0\n"
    "from diffreward.cli import commands, main; from tests.cli.test_runs import Quick\n"
    "commands.measure = lambda *_, **__: Quick(); sys.exit(main(sys.argv[1:]))"
)


@pytest.mark.slow
def test_a_kill_at_any_instant_ends_with_the_same_bits(inputs, unbroken, tmp_path):
    argv = [*arguments(inputs, tmp_path / "card"), "--steps", "150"]
    command = [sys.executable, "-c", RUN, *argv]
    rng, began = random.Random(0), time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    whole = time.monotonic() - began
    for _ in range(50):
        if (tmp_path / "card").exists():
            shutil.rmtree(tmp_path / "card")
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
            time.sleep(rng.uniform(0, 1.1 * whole))
            child.kill()
        if not (tmp_path / "card").exists() or (tmp_path / "card.training").exists():
            subprocess.run(command, check=True, capture_output=True)
        assert bits(tmp_path / "card") == unbroken
        assert not [p for p in tmp_path.iterdir() if "partial" in p.name]
