"""Folders of image models on the command line, to a card whose program agrees."""

import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

import diffreward as dr
from diffreward.cli import main
from tests.interop.test_image_unet import random_network, write_folder

SHAPE, CLASSES = (8, 8, 3), 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two pipelines without labels and two with, and images."""
    folder = tmp_path_factory.mktemp("image-models")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for i, name in enumerate(("base", "expert")):
            write_folder(folder / name, random_network(seed=i)[1])
            params = random_network(CLASSES, seed=i)[1]
            write_folder(folder / f"{name}-labels", params, num_class_embeds=CLASSES)
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (60, *SHAPE)).astype(np.float32)
    label = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, len(x))]
    np.save(folder / "x.npy", x)
    np.savez(folder / "x.npz", x=x, label=label)
    np.savez(folder / "odd.npz", x=x, label=np.where(label == 0, 0.5, label))
    np.savez(folder / "four.npz", x=x, label=np.pad(label, ((0, 0), (0, 1))))
    np.save(folder / "first.npy", x.transpose(0, 3, 1, 2))
    np.save(folder / "bytes.npy", (127.5 * (x + 1)).astype(np.uint8))
    np.save(folder / "unit.npy", (x + 1) / 2)
    return folder


def extract(folder, out, *more, data="x.npy", kind=""):
    argv = ["extract", "--base", folder / f"base{kind}", "--expert"]
    argv += [folder / f"expert{kind}", "--data", folder / data, "--out", out]
    argv += ["--steps", "4", "--batch-size", "4", "--test-samples", "6", "--depth", "1"]
    return main([str(part) for part in (*argv, *more)])


def program(card, data, out):
    argv = [sys.executable, card / "score.py", data, out]
    subprocess.run(argv, check=True, capture_output=True, cwd=card)
    return np.load(out)


@pytest.mark.parametrize(
    ("network", "built"),
    [(None, "UnetReward"), ("value", "ValueUnet"), ("perceptron", "InnerProductReward")],
)
def test_two_folders_become_a_card(network, built, folder, tmp_path, capsys):
    out = tmp_path / "card"
    more = ["--width", "8"] + ([] if network is None else ["--network", network])
    assert extract(folder, out, *more) == 0
    told = json.loads((out / "card.json").read_text())
    assert told["shape"] == list(SHAPE)
    assert built in json.dumps(told)
    assert told["provenance"]["base"]["prediction"] == "eps"
    ours = dr.score(dr.load(out), np.load(folder / "x.npy"))
    assert np.ptp(ours) > 0
    found = program(out, folder / "x.npy", tmp_path / "s.npy")
    np.testing.assert_allclose(found, ours, rtol=1e-3, atol=1e-4)


def test_pictures_that_cannot_be_halved_get_a_perceptron(folder, tmp_path, capsys):
    # Also: bytes are what a normaliser makes of them.
    more = ["--depth", "5", "--width", "8", "--normaliser", "limits"]
    assert extract(folder, tmp_path / "card", *more, data="bytes.npy") == 0
    assert (
        "the reward is a perceptron, for network unet of depth 5" in capsys.readouterr().err
    )
    assert "InnerProductReward" in (tmp_path / "card/card.json").read_text()


def test_models_with_classes_are_told_the_labels(folder, tmp_path, capsys):
    out = tmp_path / "card"
    more = ["--context", "label", "--width", "8"]
    assert extract(folder, out, *more, data="x.npz", kind="-labels") == 0
    told = json.loads((out / "card.json").read_text())
    assert told["context"]["parts"] == {"label": [CLASSES]}
    with np.load(folder / "x.npz") as arrays:
        x, label = arrays["x"], arrays["label"]
    reward = dr.load(out)
    right, wrong = (
        dr.score(reward, (x, {"label": rows}))
        for rows in (label, np.roll(label, 1, axis=1))
    )
    assert np.abs(right - wrong).min() > 0


REFUSED = {
    "channels first": ((), {"data": "first.npy"}, "the data are shaped (3, 8, 8)"),
    "bytes": ((), {"data": "bytes.npy"}, "in [-1, 1], so give x / 127.5 - 1"),
    "no label": (
        (),
        {"kind": "-labels"},
        "told what --context must name: one array (samples, 3), one-hot",
    ),
    "a label of nothing": (
        ("--context", "label"),
        {"data": "x.npz"},
        "is told nothing beside its sample; leave --context away",
    ),
    "no one-hot label": (
        ("--context", "label"),
        {"data": "odd.npz", "kind": "-labels"},
        "label of sample 0 is no one-hot label",
    ),
    "another number of labels": (
        ("--context", "label"),
        {"data": "four.npz", "kind": "-labels"},
        "one array (samples, 3), one-hot; given: label (4,)",
    ),
    "too deep": (
        ("--network", "unet", "--depth", "5"),
        {},
        "halves images 4 times, which 8 x 8 cannot be",
    ),
    "narrow": (("--network", "unet", "--width", "12"), {}, "width must be a multiple of 8"),
    "energies": (
        ("--network", "unet", "--method", "residual_alignment"),
        {},
        "--network unet is for --method gradient_alignment",
    ),
    "with labels": (
        ("--network", "unet", "--context", "label"),
        {"data": "x.npz", "kind": "-labels"},
        "--network unet takes no --context",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_one_line(name, folder, tmp_path, capsys):
    more, options, message = REFUSED[name]
    assert extract(folder, tmp_path / "card", *more, **options) == 1
    said = capsys.readouterr().err
    assert message in said
    assert re.fullmatch(r"error: [^\n]+\n", said)
    assert not (tmp_path / "card").exists()


def test_a_detector_asks_every_model_its_way(folder, capsys):
    for kind, data in (("", "x.npy"), ("-labels", "x.npz")):
        argv = ["detect", "--model", folder / f"base{kind}", "--data", folder / data]
        argv += ["--context", "label"] if kind else []
        assert main([str(part) for part in argv]) == 0
        said = capsys.readouterr().out
        assert "the checkpoint says: eps" in said
        assert "asked for eps" in said


def test_pictures_from_0_to_1_are_noted(folder, capsys):
    argv = ["detect", "--model", folder / "base", "--data", folder / "unit.npy"]
    assert main([str(part) for part in argv]) == 0
    assert "models of pictures are trained in [-1, 1]" in capsys.readouterr().err
