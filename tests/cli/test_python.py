"""Models given as Python on the command line: any shape, contexts, and what goes wrong."""

import json
import subprocess
import sys

import numpy as np
import pytest

import diffreward as dr
from diffreward.cli import main
from diffreward.cli.samples import read_samples
from diffreward.data import Normaliser

PLAIN = """
import jax.numpy as jnp
import diffreward as dr
from diffreward.diffusion import cosine, discrete
from helper import SHIFT

schedule = cosine(8)

def law(mean):
    def eps(x, t):
        a, s = schedule.sqrt_alpha_bar[t], schedule.sigma[t]
        return s * (x - a * mean)  # of unit variance: E[eps | x_t]
    return dr.DiffusionModel(eps, discrete(schedule))

def base():
    return law(0.0)

def expert():
    return law(SHIFT)

def of_goal(strength):
    def model(context):
        return law(strength * context["goal"][0] + jnp.zeros((4, 3, 1)))
    return model

def base_of_goal():
    return of_goal(0.0)

def expert_of_goal():
    return of_goal(0.05)

def far_of_goal():
    return of_goal(0.5)

def far_and_late():
    def model(context):
        inner = of_goal(0.5)(context)
        return inner._replace(apply=lambda x, t: inner.apply(x, 7 - t))
    return model

def broken():
    return base() if False else 1 / 0

def nothing():
    return None
"""
SHAPE = (4, 3, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("python")
    (folder / "models.py").write_text(PLAIN)
    (folder / "helper.py").write_text("SHIFT = 0.5\n")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, *SHAPE)).astype(np.float32)
    goal = rng.normal(20, 5, size=(80, 1)).astype(np.float32)
    np.save(folder / "x.npy", x)
    np.savez(folder / "x.npz", x=x, goal=goal)
    moved = x + 0.05 * goal[:, :, None, None]
    np.savez(folder / "expert.npz", x=moved, goal=goal)
    np.savez(folder / "far.npz", x=x + 0.5 * goal[:, :, None, None], goal=goal)
    return folder


def run(folder, base, expert, data, out, *more):
    small = ["--steps", "30", "--width", "16", "--depth", "1", "--batch-size", "16"]
    return main(
        [
            "extract",
            *("--base", f"{folder}/models.py:{base}"),
            *("--expert", f"{folder}/models.py:{expert}"),
            *("--data", f"{folder}/{data}", "--out", str(out)),
            *small,
            *more,
        ]
    )


def program(card, data, out):
    subprocess.run(
        [sys.executable, card / "score.py", data, out],
        check=True,
        capture_output=True,
        cwd=card,
    )
    return np.load(out)


def test_two_models_in_python_become_a_card(folder, tmp_path, capsys):
    """Images, whose card's program gives the numbers of the library."""
    out = tmp_path / "card"
    assert run(folder, "base", "expert", "x.npy", out) == 0
    told = json.loads((out / "card.json").read_text())
    assert told["shape"] == list(SHAPE)
    assert told["provenance"]["base"]["function"] == "base"
    assert len(told["provenance"]["base"]["sha256"]) == 64
    x = np.load(folder / "x.npy")
    ours = dr.score(dr.load(out), x)
    np.testing.assert_allclose(
        program(out, folder / "x.npy", tmp_path / "s.npy"), ours, rtol=1e-3, atol=1e-4
    )
    # The path of imports is as it was.
    assert str(folder) not in sys.path


def test_contexts_come_from_the_file_and_stay_in_the_card(folder, tmp_path, capsys):
    out, data = tmp_path / "card", folder / "x.npz"
    more = ["--context", "goal", "--expert-data", str(folder / "expert.npz")]
    more += ["--steps", "300"]
    assert run(folder, "base_of_goal", "expert_of_goal", "x.npz", out, *more) == 0
    told = json.loads((out / "card.json").read_text())
    assert told["context"] == {"sample": list(SHAPE), "parts": {"goal": [1]}}
    assert told["measures"]["auroc_within_conditions"][0] > 0.5
    capsys.readouterr()
    assert main(["score", str(out), str(data)]) == 0
    printed = [float(line) for line in capsys.readouterr().out.split()]
    with np.load(data) as arrays:
        ours = dr.score(dr.load(out), (arrays["x"], {"goal": arrays["goal"]}))
    np.testing.assert_allclose(printed, ours, rtol=1e-4)
    np.testing.assert_allclose(program(out, data, tmp_path / "s.npy"), ours, rtol=1e-3)
    assert main(["score", str(out), str(folder / "x.npy")]) == 1
    assert "with a context are read from .npz" in capsys.readouterr().err
    # The reward's network sees goals in coordinates of their own.
    np.testing.assert_allclose(dr.load(out).normaliser.shift[-1], 20, atol=2)


def test_another_model_behind_the_same_file_is_another_run(folder, tmp_path, capsys):
    """What a function reads elsewhere counts: here a constant of another module."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("models.py", "helper.py", "x.npy"):
        (copy / name).write_bytes((folder / name).read_bytes())
    out = tmp_path / "card"
    with pytest.MonkeyPatch.context() as patch:

        def stop(*_, **__):
            raise KeyboardInterrupt

        patch.setattr("diffreward.cli.commands.measure", stop)
        assert run(copy, "base", "expert", "x.npy", out) == 130
    (copy / "helper.py").write_text("SHIFT = 0.75\n")
    sys.modules.pop("helper")
    capsys.readouterr()
    assert run(copy, "base", "expert", "x.npy", out) == 1
    assert "unfinished work of another run: models answers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("base", "more", "words"),
    [
        ("nowhere", [], "has no function 'nowhere'; it has base, base_of_goal, broken"),
        ("broken", [], "models.py:broken fails in line 42: ZeroDivisionError"),
        ("nothing", [], "returns a NoneType; it must return a DiffusionModel"),
        ("base_of_goal", [], "returns a function; without --context it must return"),
        ("base", ["--context", "goal"], "with --context it must return a function"),
        ("base", ["--context", "aim"], "lacks the context 'aim'; its arrays: goal, x"),
        ("base", ["--context", "x"], "not x or group; got 'x'"),
        ("base", ["--base-prediction", "eps"], "says itself what it predicts"),
        ("base", ["--base-copy", "ema"], "is Python and has no copies"),
        ("base", ["--pin-first", "2"], "--pin-first 2 does not fit samples"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(folder, tmp_path, capsys, base, more, words):
    assert run(folder, base, "expert", "x.npz", tmp_path / "card", *more) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("error: ")
    assert words in said[-1]
    assert not any(tmp_path.iterdir())


def test_a_file_that_fails_or_is_not_there_is_named(folder, tmp_path, capsys):
    (tmp_path / "bad.py").write_text("x = 1\ndef broken(:\n")
    for model, words in (
        (tmp_path / "bad.py:make", "bad.py fails in line 2: SyntaxError"),
        (tmp_path / "none.py:make", "none.py does not exist"),
        (folder / "models.py", "models.py"),
    ):
        data = str(folder / "x.npy")
        assert main(["detect", "--model", str(model), "--data", data]) == 1
        assert words in capsys.readouterr().err


def test_samples_of_another_shape_are_said_by_the_model(folder, tmp_path, capsys):
    np.save(tmp_path / "flat.npy", np.ones((40, 5), np.float32))
    (tmp_path / "m.py").write_text(
        "import diffreward as dr\nfrom diffreward.diffusion import cosine, discrete\n"
        "def a(): return dr.DiffusionModel(lambda x, t: x[:3], discrete(cosine(8)))\n"
    )
    argv = ["extract", "--base", f"{tmp_path}/m.py:a", "--expert", f"{tmp_path}/m.py:a"]
    argv += ["--data", str(tmp_path / "flat.npy"), "--out", str(tmp_path / "card")]
    assert main(argv) == 1
    assert (
        "m.py:a answers a sample of shape (5,) with shape (3,)" in capsys.readouterr().err
    )


def test_the_detector_says_how_a_model_is_asked(folder, capsys):
    ask = lambda name, *more: main(
        ["detect", "--model", f"{folder}/models.py:{name}", *map(str, more)]
    )
    data = ("--data", folder / "far.npz", "--context", "goal")
    assert ask("far_of_goal", *data) == 0
    said = capsys.readouterr().out
    assert "eps, confidence 1.00" in said
    assert "the checkpoint says: eps" in said
    assert "asked as declared the model explains" in said
    assert ask("far_and_late", *data) == 0
    said = capsys.readouterr().out
    assert "asked with time reversed the model explains" in said
    assert "what it declares is wrong" in said


OWN = """
import numpy as np
import diffreward as dr
from diffreward.data import Normaliser
from diffreward.diffusion import cosine, discrete

schedule = cosine(6)
place = Normaliser(np.array([10.0, -10.0]), np.array([3.0, 3.0]))
seen = []

def law(mean, normaliser=None):
    def eps(x, t):
        return schedule.sigma[t] * (x - schedule.sqrt_alpha_bar[t] * mean)
    return dr.DiffusionModel(eps, discrete(schedule), normaliser=normaliser)

def base(): return law(0.0, place)
def expert(): return law(0.5, place)
def bare(): return law(0.0)
def bare_expert(): return law(0.5)
def of_goal():
    return lambda c: law(0.0 * c["goal"], place)
def expert_of_goal():
    return lambda c: law(0.5 + 0.0 * c["goal"], place)
"""


@pytest.fixture(scope="module")
def placed(tmp_path_factory):
    """Models of standard normal points, and points far from there."""
    folder = tmp_path_factory.mktemp("placed")
    (folder / "m.py").write_text(OWN)
    z = np.random.default_rng(0).normal(size=(80, 2)).astype(np.float32)
    x = (z * 3 + [10, -10]).astype(np.float32)
    np.save(folder / "x.npy", x)
    np.savez(folder / "x.npz", x=x, goal=100 * z[:, 1:] - 7)
    return folder


def extract(folder, base, expert, data, out, *more):
    argv = ["extract", "--base", f"{folder}/m.py:{base}", "--expert"]
    argv += [f"{folder}/m.py:{expert}", "--data", f"{folder}/{data}", "--out", str(out)]
    argv += ["--steps", "5", "--width", "8", "--depth", "1", "--batch-size", "8"]
    return main([*argv, *more])


def test_a_model_says_the_coordinates_of_the_pair(placed, tmp_path, capsys):
    assert extract(placed, "base", "expert", "x.npy", tmp_path / "own") == 0
    own = dr.load(tmp_path / "own")
    np.testing.assert_array_equal(own.normaliser.shift, [10, -10])
    np.testing.assert_array_equal(own.normaliser.scale, [3, 3])
    told = json.loads((tmp_path / "own/card.json").read_text())
    assert told["provenance"]["normaliser"] == "declared by the base"
    # Read in these, the models explain the data; a reward that is theirs agrees.
    data = str(placed / "x.npy")
    assert main(["detect", "--model", f"{placed}/m.py:base", "--data", data]) == 0
    assert "asked as declared the model explains" in capsys.readouterr().out
    more = ["--normaliser", "gaussian"]
    assert extract(placed, "base", "expert", "x.npy", tmp_path / "two", *more) == 1
    assert "m.py:base says its own normaliser; leave" in capsys.readouterr().err


def test_a_model_without_coordinates_takes_those_of_the_data(placed, tmp_path, capsys):
    more = ["--normaliser", "gaussian"]
    out = tmp_path / "card"
    assert extract(placed, "bare", "bare_expert", "x.npy", out, *more) == 0
    np.testing.assert_allclose(dr.load(out).normaliser.shift, [10, -10], atol=1)
    told = json.loads((out / "card.json").read_text())
    assert told["provenance"]["normaliser"] == "gaussian"


def test_an_expert_that_alone_says_where_it_lives_is_refused(placed, tmp_path, capsys):
    assert extract(placed, "bare", "expert", "x.npy", tmp_path / "card") == 1
    assert "m.py:expert says its own normaliser and the base" in capsys.readouterr().err
    # Told where the base lives, the two are compared: here no one factor joins them.
    more = ["--normaliser", "gaussian"]
    assert extract(placed, "bare", "expert", "x.npy", tmp_path / "card", *more) == 1
    assert "normaliser scale of dimension" in capsys.readouterr().err
    # Without coordinates of its own an expert lives where the base does.
    assert extract(placed, "base", "bare_expert", "x.npy", tmp_path / "card") == 0


def test_coordinates_of_samples_and_of_contexts_go_together(placed, tmp_path):
    out, more = tmp_path / "card", ["--context", "goal"]
    assert extract(placed, "of_goal", "expert_of_goal", "x.npz", out, *more) == 0
    reward = dr.load(out)
    np.testing.assert_allclose(reward.normaliser.shift, [10, -10, -7], atol=30)
    np.testing.assert_allclose(reward.normaliser.scale, [3, 3, 100], rtol=0.2)
    assert json.loads((out / "card.json").read_text())["conditioned"] == 1


def test_rows_are_in_the_coordinates_of_networks(placed):
    samples = read_samples(placed / "x.npz", context=["goal"])
    layout = samples.layout
    place = Normaliser(np.array([10.0, -10.0]), np.array([3.0, 3.0]))
    rows = samples.within(place, layout)
    np.testing.assert_allclose(rows[:, :2], (samples.x - [10, -10]) / 3, rtol=1e-5)
    np.testing.assert_allclose(rows[:, 2].mean(), 0, atol=1e-4)
    np.testing.assert_allclose(rows[:, 2].std(), 1, atol=1e-4)
    x, context = samples.taken(slice(3, 5))
    np.testing.assert_array_equal(x, samples.x[3:5])
    np.testing.assert_array_equal(context["goal"], samples.context["goal"][3:5])


SHORT = """
import diffreward as dr
from diffreward.diffusion import discrete, linear_betas

schedule = linear_betas(50)

def law(mean):
    def eps(x, t):
        return schedule.sigma[t] * (x - schedule.sqrt_alpha_bar[t] * mean)
    return dr.DiffusionModel(eps, discrete(schedule))

def base(): return law(0.0)
def expert(): return law(0.5)
"""


def test_a_chain_that_stops_early_is_a_note_and_a_limit(placed, tmp_path):
    """One line, which names no place in our code; the card says it too."""
    (tmp_path / "m.py").write_text(SHORT)
    argv = ["-m", "diffreward", "extract", "--base", "m.py:base", "--expert", "m.py:expert"]
    argv += ["--data", str(placed / "x.npy"), "--out", "card", "--steps", "5"]
    argv += ["--width", "8", "--depth", "1", "--batch-size", "8"]
    done = subprocess.run(
        [sys.executable, *argv], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    notes = [line for line in done.stderr.splitlines() if "stops before noise" in line]
    assert len(notes) == 1
    assert notes[0].startswith("note: The chain of this pair stops before noise")
    assert "UserWarning" not in done.stderr
    limits = json.loads((tmp_path / "card/card.json").read_text())["limits"]
    assert "stops before noise" in limits[0]
