"""Cards of conditional rewards: contexts go with them, and others are refused."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

import diffreward as dr
from diffreward.diffusion import cosine
from diffreward.extract.conditional import known_conditional_pairs

KNOWN = known_conditional_pairs()["conditional"]


@pytest.fixture(scope="module")
def reward():
    with jax.numpy_dtype_promotion("standard"):
        rows = KNOWN.layout.unpack(KNOWN.sample("expert", jax.random.key(0), 64))
        return dr.fit(KNOWN.exact_pair(cosine(6)), rows, steps=20, batch_size=16)


@pytest.fixture
def folder(reward, tmp_path):
    dr.save(reward, tmp_path / "card")
    return tmp_path / "card"


@pytest.fixture(scope="module")
def samples():
    x, context = KNOWN.layout.unpack(KNOWN.sample("base", jax.random.key(1), 5))
    return np.asarray(x), {k: np.asarray(v) for k, v in context.items()}


def test_a_card_gives_the_same_scores_under_the_same_contexts(reward, folder, samples):
    loaded = dr.load(folder)
    assert loaded.context.words == reward.context.words == "observation (2,)"
    np.testing.assert_array_equal(loaded.pinned, reward.pinned)
    for form in ("value", "ranking"):
        np.testing.assert_allclose(
            dr.score(loaded, samples, as_=form), dr.score(reward, samples, as_=form)
        )
    x, context = samples
    other = {"observation": context["observation"][::-1]}
    assert not np.allclose(dr.score(loaded, samples), dr.score(loaded, (x, other)))
    with pytest.raises(ValueError, match="lacks 'observation'"):
        dr.score(loaded, (x, {}))


def test_the_program_takes_arrays_by_their_names(folder, samples, reward, tmp_path):
    x, context = samples
    np.savez(tmp_path / "samples.npz", x=x, **context)
    run = lambda *args: subprocess.run(
        [sys.executable, folder / "score.py", *args], capture_output=True, text=True
    )
    done = run(tmp_path / "samples.npz", tmp_path / "scores.npy")
    assert done.returncode == 0, done.stderr
    ours = dr.score(reward, samples)
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), ours, atol=1e-4)
    np.savez(tmp_path / "samples.npz", x=x, other=context["observation"])
    wrong = run(tmp_path / "samples.npz")
    assert wrong.returncode != 0
    assert "observation" in wrong.stderr


def test_a_card_says_that_no_gradient_values_a_condition(folder, reward, tmp_path):
    said = lambda folder: json.loads((folder / "card.json").read_text())["limits"]
    assert any("samples of one condition" in limit for limit in said(folder))
    # A classifier of both laws sees what a condition is worth; a free sample has none.
    others = {"classifier": {"extractor": "discriminator"}, "free": {"pinned": None}}
    for name, change in others.items():
        plain = reward._replace(context=None, **change)
        dr.save(plain, tmp_path / name)
        assert not any("condition" in limit for limit in said(tmp_path / name))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"context": {"sample": [2], "parts": {"observation": [3]}}}, "5 numbers"),
        ({"context": {"sample": [2], "parts": {}}}, "context"),
        ({"context": {"sample": [2], "parts": {"x": [2]}}}, "context"),
        ({"conditioned": 1}, "entries set; the card says 1"),
        ({"conditioned": 0}, "pinned"),
    ],
)
def test_a_card_whose_context_does_not_fit_is_refused(folder, change, words):
    path = folder / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=words):
        dr.load(folder)
