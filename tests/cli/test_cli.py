"""The command line, on checkpoints as other people have them."""

import re
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import diffreward
from diffreward.card import read_card
from diffreward.cli import main
from diffreward.data import write_hdf5
from diffreward.diffusion import cosine, linear
from diffreward.interop import save_scheduler, save_unet1d
from diffreward.networks import TemporalUnet
from diffreward.reward import score_samples
from tests.networks.reference import random_params

HORIZON, DIM = 8, 5
NETWORK = TemporalUnet(16, (1, 2))


def checkpoint(folder, schedule, change=0.0, prediction="x_0"):
    """A pipeline folder with a random network."""
    params = random_params(NETWORK, jnp.zeros((HORIZON, DIM)), jnp.int32(0))
    params["params"]["head"]["bias"] += change
    folder.mkdir(parents=True)
    save_unet1d(folder / "unet", NETWORK, params, DIM)
    save_scheduler(folder / "scheduler", schedule, prediction)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two checkpoints of unlike schedules, and samples."""
    folder = tmp_path_factory.mktemp("cli")
    checkpoint(folder / "base", cosine(20))
    checkpoint(folder / "expert", linear(50), change=0.5)
    rng = np.random.default_rng(0)
    for name, mean in (("data", 0.0), ("expert_data", 0.5)):
        x = rng.normal(mean, 1, (60, HORIZON, DIM)).astype(np.float32)
        np.save(folder / f"{name}.npy", x)
    return folder


def arguments(folder, out, *more):
    paths = {"--base": "base", "--expert": "expert", "--data": "data.npy"}
    parts = [str(p) for k, v in paths.items() for p in (k, folder / v)]
    small = ["--steps", "20", "--width", "16", "--depth", "1", "--batch-size", "8"]
    return ["extract", *parts, "--out", str(out), *small, *map(str, more)]


@pytest.fixture(scope="module")
def made(files):
    """A card, made by a process in which PyTorch cannot be imported."""
    out = files / "card"
    argv = arguments(files, out, "--expert-data", files / "expert_data.npy")
    code = (
        "import sys\n"
        "class Without:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.split('.')[0] in ('torch', 'diffusers'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Without())\n"
        f"from diffreward.cli import main; sys.exit(main({argv!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_two_foreign_checkpoints_become_a_card(made):
    out, said = made
    card = read_card(out)
    assert "48 samples to learn from, 6 held out" in said
    assert card["provenance"]["base"]["prediction"] == "x_0"
    assert len(card["provenance"]["expert"]["sha256"]) == 64
    assert card["measures"]["auroc"][1] <= card["measures"]["auroc"][0]
    assert len(card["measures"]["explained_by_level"]) == 50
    assert any("unexplained" in limit for limit in card["limits"])
    assert (out / "figures/measures.png").stat().st_size > 5000
    assert not out.with_name("card.training").exists()


def test_scores_are_those_of_the_library(made, files, capsys):
    out, _ = made
    assert main(["score", str(out), str(files / "data.npy")]) == 0
    printed = [float(line) for line in capsys.readouterr().out.split()]
    wanted = score_samples(diffreward.load(out), np.load(files / "data.npy"))
    np.testing.assert_allclose(printed, wanted, rtol=1e-4)
    assert main(["score", str(out), str(files / "data.npy"), "--as", "ranking"]) == 0
    said = capsys.readouterr()
    assert said.err.startswith("ranking: mean of the reward over noise levels")
    wanted_ranks = score_samples(
        diffreward.load(out), np.load(files / "data.npy"), as_="ranking"
    )
    ranks = [float(line) for line in said.out.split()]
    np.testing.assert_allclose(ranks, wanted_ranks, rtol=1e-4)
    target = files / "scores.npy"
    assert main(["score", str(out), str(files / "data.npy"), "--out", str(target)]) == 0
    np.testing.assert_array_equal(np.load(target), wanted)


def test_the_page_has_the_measures_and_the_limits(made, capsys):
    out, _ = made
    assert main(["report", str(out)]) == 0
    page = capsys.readouterr().out
    for part in (
        "# Reward card: card",
        "AUROC",
        "## Limits",
        "## Provenance",
        "sha256",
        "nats:",
    ):
        assert part in page


def test_episodes_are_cut_into_windows(made, files, tmp_path, capsys):
    out, _ = made
    rng = np.random.default_rng(1)
    ends = np.zeros(40, bool)
    ends[[19, 24, 39]] = True  # 20, 5 and 15 steps: the second has no whole window
    stream = {
        "observations": rng.standard_normal((40, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (40, 2)).astype(np.float32),
        "rewards": np.zeros(40, np.float32),
        "terminals": ends,
        "timeouts": np.zeros(40, bool),
    }
    write_hdf5(tmp_path / "x.hdf5", stream, {})
    assert main(["score", str(out), str(tmp_path / "x.hdf5")]) == 0
    values = [float(line) for line in capsys.readouterr().out.split()]
    assert len(values) == (20 - 7) + (15 - 7)
    rows = np.concatenate([stream["actions"], stream["observations"]], 1)
    first = score_samples(diffreward.load(out), rows[None, :HORIZON])
    np.testing.assert_allclose(values[0], first[0], rtol=1e-4)


def error(capsys, argv):
    assert main(argv) == 1
    said = capsys.readouterr().err
    assert re.fullmatch(r"error: [^\n]+\n", said), said
    return said


def test_wrong_input_is_one_line(made, files, tmp_path, capsys):
    out, _ = made
    said = error(capsys, arguments(files, out))
    assert "card exists; choose another --out or give --replace" in said
    np.save(tmp_path / "wide.npy", np.zeros((30, HORIZON, 7), np.float32))
    argv = arguments(files, tmp_path / "c", "--data", tmp_path / "wide.npy")
    assert "model of samples shaped (horizon, 5)" in error(capsys, argv)
    said = error(capsys, ["score", str(out), str(tmp_path / "wide.npy")])
    assert "samples are shaped (8, 7), the card needs (8, 5)" in said
    argv = arguments(files, tmp_path / "c", "--base", tmp_path / "none")
    assert "none does not exist" in error(capsys, argv)
    argv = arguments(files, tmp_path / "c", "--base-prediction", "consistency")
    assert "consistency model cannot be paired" in error(capsys, argv)
    np.save(tmp_path / "nan.npy", np.full((3, HORIZON, DIM), np.nan))
    assert "sample 0 is not finite" in error(
        capsys, ["score", str(out), str(tmp_path / "nan.npy")]
    )
    argv = ["score", str(tmp_path), str(files / "data.npy")]
    assert "is no reward card" in error(capsys, argv)
    (tmp_path / "text.csv").write_text("1,2")
    argv = ["score", str(out), str(tmp_path / "text.csv")]
    assert ".npy, .npz and .hdf5" in error(capsys, argv)
    assert not (tmp_path / "c").exists()


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    for name in ("extract", "score", "report", "detect"):
        assert name in said


def test_a_random_network_is_not_detected_as_anything(files, capsys):
    argv = ["detect", "--model", str(files / "base"), "--data", str(files / "data.npy")]
    assert main(argv) == 0
    said = capsys.readouterr().out
    [confidence] = re.findall(r"confidence ([\d.]+)", said)
    assert float(confidence) < 0.95
    assert "the checkpoint says: x_0" in said
