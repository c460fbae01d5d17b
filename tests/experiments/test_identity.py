"""What a run belongs to: the bytes it read, wherever they lie."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from configs import images, locomotion
from diffreward import data, files, report
from experiments.images import stable_diffusion as sd
from experiments.locomotion import data as experiment
from experiments.locomotion.run import build

ROOT = Path(__file__).parents[2]


@pytest.fixture
def section(tmp_path, monkeypatch):
    """A config of a pipeline of one file, and prompts."""

    def load(folder, **options):
        files.read_text(Path(folder) / "unet" / "config.json")
        return SimpleNamespace(latent_shape=(4, 4, 4))

    monkeypatch.setattr(sd, "load_stable_diffusion", load)
    pair = SimpleNamespace(_replace=lambda **_: pair)
    monkeypatch.setattr(sd, "build", lambda *_: pair)
    (tmp_path / "pipe" / "unet").mkdir(parents=True)
    (tmp_path / "pipe" / "unet" / "config.json").write_text("1")
    (tmp_path / "p.csv").write_text("prompt\na cat\n")
    config = images.get_config("sd").unlock()
    config.sd.folder, config.sd.prompts = str(tmp_path / "pipe"), str(tmp_path / "p.csv")
    return config


def test_a_moved_model_and_moved_prompts_are_the_same(section, tmp_path):
    sd.make_pair(section, tmp_path / "run")
    before = report.stage_digest(tmp_path / "run" / "models")
    shutil.move(tmp_path / "pipe", tmp_path / "elsewhere")
    shutil.move(tmp_path / "p.csv", tmp_path / "q.csv")
    section.sd.folder = str(tmp_path / "elsewhere")
    section.sd.prompts = str(tmp_path / "q.csv")
    sd.make_pair(section, tmp_path / "run")
    assert report.stage_digest(tmp_path / "run" / "models") == before


@pytest.mark.parametrize("name", ["p.csv", "pipe/unet/config.json"])
def test_other_bytes_are_another_run(section, tmp_path, name):
    sd.make_pair(section, tmp_path / "run")
    (tmp_path / name).write_text("prompt\na dog\n")
    with pytest.raises(report.StaleRunError, match="made with other inputs"):
        sd.make_pair(section, tmp_path / "run")


def test_collected_data_that_were_exchanged_are_refused(tmp_path):
    path = tmp_path / "data" / "base.hdf5"
    rows = {"observations": np.zeros((2, 3)), "actions": np.zeros((2, 1))}
    data.write_hdf5(path, rows, {})
    found = {"base": {"sha256": files.sha256(path)}}
    report.write_json(tmp_path / "data" / "report.json", found)
    assert experiment.own_file(tmp_path / "data", "base") == path
    data.write_hdf5(path, rows | {"rewards": np.ones(2)}, {})
    run = build(locomotion.get_config("hopper,smoke"), tmp_path)
    with pytest.raises(ValueError, match=r"not the file that was collected; delete .*data"):
        experiment.load(run, "base")


def test_the_home_folder_is_found_after_an_equals_sign(tmp_path):
    environment = {
        **os.environ,
        "HOME": str(tmp_path / "home"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    config = f"--config={ROOT}/configs/images.py:digits,smoke"
    (tmp_path / "home" / "x").mkdir(parents=True)
    (tmp_path / "home" / "x" / "base").mkdir()
    (tmp_path / "home" / "x" / "base" / "config.json").write_text("{")
    done = subprocess.run(
        [sys.executable, "-m", "experiments.images", config, "--workdir=~/x"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert f"error: {tmp_path}/home/x/base/config.json is not valid JSON" in done.stderr
    assert not (tmp_path / "~").exists()
