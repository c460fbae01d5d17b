"""What every experiment's command line does before anything is written."""

import subprocess
import sys


def command(*arguments):
    """A child: its exit status, and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_a_dry_run_says_what_would_be_trained_and_writes_nothing(tmp_path):
    place = tmp_path / "run"
    asked = ("--config=configs/maze2d.py:umaze,smoke", f"--workdir={place}", "--dry_run")
    status, out, said = command("experiments.maze2d", *asked)
    assert (status, said) == (0, "")
    assert "window_rewards" in out
    assert "minutes of training" in out
    assert not place.exists()


def test_an_experiment_without_one_says_so(tmp_path):
    place = tmp_path / "run"
    asked = ("--config=configs/rl.py:umaze,smoke", f"--workdir={place}", "--dry_run")
    status, _, said = command("experiments.rl", *asked)
    assert (status, said) == (1, "error: this experiment has no --dry_run; leave it out\n")
    assert not place.exists()
