"""`import diffreward as dr`: light, complete, and clear about wrong arguments."""

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffreward as dr
from diffreward.api import __all__ as api_names
from diffreward.data.pairs import known_pairs
from diffreward.reward import relative_score
from diffreward.steer import guide

QUICK = {"steps": 20, "batch_size": 16}
SOURCE = Path(dr.__file__)


@pytest.fixture(autouse=True)
def _optax_promotion():
    """Adam's bias correction raises a Python float to an int32 power."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def toy():
    return dr.toy_pair(200, num_steps=8)


@pytest.fixture(scope="module")
def pair(toy):
    return dr.make_pair(toy.base, toy.expert)


@pytest.fixture(scope="module")
def reward(pair, toy):
    with jax.numpy_dtype_promotion("standard"):
        return dr.fit(pair, toy.train, steps=300, batch_size=64)


def test_the_toy_pair_is_exact(toy, pair):
    known, x = known_pairs()["tilted_quadratic"], toy.test[:5]
    for t in range(pair.schedule.num_steps):
        score = lambda x, t=t: relative_score(pair, x, jnp.int32(t))
        exact = lambda x, t=t: jax.grad(known.reward)(x, pair.schedule.alpha_bar[t])
        np.testing.assert_allclose(
            jax.vmap(score)(x), jax.vmap(exact)(x), rtol=1e-3, atol=1e-4
        )


def unchecked(function):
    """The function as users call it; only the tests check types before."""
    return inspect.unwrap(function)


def test_a_bare_import_loads_nothing_heavy():
    code = "import sys, diffreward, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert not loaded & {"jax", "numpy", "flax", "scipy", "h5py", "matplotlib"}


def test_every_name_leads_somewhere():
    assert sorted(api_names) == sorted(dr.__all__)
    for name in (*dr.__all__, *dr._PACKAGES):
        assert getattr(dr, name) is not None
        assert name in dir(dr)
    assert dr.make_pair is dr.reward.make_pair
    with pytest.raises(AttributeError, match="no attribute 'fti'"):
        dr.fti  # noqa: B018
    assert not hasattr(dr, "cli_")


def test_checkers_see_what_there_is():
    """The imports that only checkers read are those that happen when a name is used."""
    tree = ast.parse(SOURCE.read_text())
    stub = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {a.name for n in stub.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert seen == {*dr.__all__, *dr._PACKAGES}
    found = {p.parent.name for p in SOURCE.parent.glob("*/__init__.py")} | {"types"}
    assert set(dr._PACKAGES) == found - {"cli", "files"}


def test_it_learns_steers_and_keeps(toy, pair, reward, tmp_path):
    """The whole way, against the truth that the toy knows."""
    found, true = dr.score(reward, toy.test), toy.true_reward(toy.test)
    assert dr.measures.rank_correlation(found, true).low > 0.9
    steered = dr.guide(pair.base, reward)
    draw = lambda model: dr.draw_samples(model, pair.schedule, (300, 2), seed=1)
    models = (pair.base, steered, pair.expert)
    base, moved, expert = (toy.true_reward(draw(m)).mean() for m in models)
    assert base < moved
    np.testing.assert_allclose(moved, expert, atol=0.2 * (expert - base))

    assert (reward.units, reward.shape) == ("nats", (2,))
    dr.save(reward, tmp_path / "card")
    again = dr.load(tmp_path / "card")
    assert (again.units, again.shape) == ("nats", (2,))
    np.testing.assert_allclose(dr.score(again, toy.test), found, rtol=1e-5)


def test_the_toy_is_what_it_says(toy):
    """Samples are of their laws, and the reward is the log ratio of the models."""
    base, expert = np.split(np.asarray(toy.train), 2)
    to_goal = lambda x: np.linalg.norm(x - 1, axis=1).mean()
    assert to_goal(expert) < 0.8 * to_goal(base)
    assert toy.true_reward(expert).mean() > 0 > toy.true_reward(base).mean()
    pair = dr.make_pair(toy.base, toy.expert)
    ratio = lambda x: dr.reward.log_ratio(pair, jax.random.key(0), x, num_noises=64).sum()
    found = jax.jit(jax.vmap(ratio))(toy.test[:32])
    assert np.corrcoef(found, toy.true_reward(toy.test[:32]))[0, 1] > 0.95


def test_fit_is_gradient_alignment_on_the_samples_given(pair, reward, monkeypatch):
    calls = []
    learned = lambda *a, **kw: calls.append((a, kw)) or reward
    monkeypatch.setattr(dr.extract, "fit", learned)
    base, expert = jnp.zeros((3, 2)), jnp.ones((2, 2))
    pins = np.array([True, False])
    for given in ({"base": base, "expert": expert}, {"expert": expert}, {"samples": base}):
        dr.fit(pair, **given, **QUICK, pinned=pins, seed=3, workdir="w")
        (name, source, settings), options = calls.pop()
        assert name == "gradient_alignment"
        assert settings == dr.extract.Training(**QUICK)
        assert options == {"seed": 3, "workdir": "w"}
        wanted = {"base": base if len(given) == 2 or "samples" in given else None}
        wanted["expert"] = given.get("expert")
        for role, rows in wanted.items():
            np.testing.assert_array_equal(getattr(source, role), rows)
        assert source.pair is pair
        np.testing.assert_array_equal(source.pinned, pins)


def test_guide_brings_a_declared_model_to_the_reward(pair, toy, reward):
    pinned = np.array([True, False])
    ways = {
        "by hand": guide(pair.base, reward.reward_fn, reward.schedule, 0.7),
        "eps": dr.guide(pair.base, reward, 0.7),
        "declared": dr.guide(toy.base, reward, 0.7),
        "pinned": dr.guide(pair.base, reward, 0.7, pinned=pinned),
        "base": pair.base,
    }
    said = jax.jit(lambda x, t: {name: eps_fn(x, t) for name, eps_fn in ways.items()})
    found = said(jnp.array([0.3, -0.8]), jnp.int32(5))
    np.testing.assert_allclose(found["eps"], found["by hand"], rtol=1e-6)
    np.testing.assert_allclose(found["declared"], found["by hand"], rtol=1e-6)
    held = found["pinned"] - found["base"]
    assert held[0] == 0
    assert held[1] != 0


class Wide(nn.Module):
    @nn.compact
    def __call__(self, x, t):
        return x


ROWS = np.zeros((4, 2), np.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pair": (1, 2)}, "fit needs a pair, from make_pair.*; got a tuple"),
        ({"samples": None}, "needs samples, or base= and expert= instead"),
        ({"base": ROWS}, "needs samples, or base= and expert= instead"),
        ({"samples": np.zeros(4)}, r"a row per sample, .* got shape \(4,\)"),
        ({"samples": np.zeros((0, 2))}, r"a row per sample, .* got shape \(0, 2\)"),
        ({"samples": [[1.0], [1.0, 2.0]]}, "samples must be an array of equal rows"),
        ({"samples": np.array([["a", "b"]])}, "samples must be real numbers, got <U1"),
        ({"samples": ROWS + 1j}, "samples must be real numbers, got complex"),
        ({"samples": ROWS + [np.nan, 0]}, "sample 0 of samples holds a number"),
        ({"samples": ROWS.astype(float) + 1e300}, "sample 0 of samples holds a number"),
        ({"samples": np.zeros((4, 3))}, r"base of the pair cannot be asked .* \(3,\): "),
        ({"samples": None, "base": ROWS, "expert": np.zeros((4, 3))}, "one shape"),
        ({"steps": 0}, "steps must be a whole number, at least 1; got 0"),
        ({"steps": 1.5}, "steps must be a whole number, at least 1; got 1.5"),
        ({"batch_size": True}, "batch_size must be a whole number"),
        ({"learning_rate": float("nan")}, "learning_rate must be a positive number"),
        ({"seed": -1}, "seed must be a whole number, at least 0; got -1"),
        ({"network": "mlp"}, "network must be a Linen module, got a str"),
        ({"network": Wide()}, r"network must map a sample to a scalar, not to .* \(2,\)"),
        ({"pinned": np.zeros(2)}, "pinned must be True or False per entry"),
        ({"pinned": np.zeros(3, bool)}, r"of shape \(2,\); got bool of shape \(3,\)"),
        ({"normaliser": (0, 1)}, "normaliser must be a data.Normaliser, got a tuple"),
    ],
)
def test_fit_names_what_is_wrong(pair, arguments, message):
    given = {"pair": pair, "samples": ROWS, **QUICK, **arguments}
    with pytest.raises(ValueError, match=message) as caught:
        unchecked(dr.fit)(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("score", {"reward": 3}, "score needs a reward, such as .*; got a int"),
        ("score", {"samples": ROWS[0]}, r"\(count, 2\), got \(2,\); put a single sample"),
        ("score", {"samples": np.zeros((4, 3))}, r"\(count, 2\), got \(4, 3\)"),
        ("score", {"samples": np.zeros((0, 2))}, "a row per sample"),
        ("score", {"as_": "nat"}, "unknown form of a score 'nat'"),
        ("score", {"num_noises": 0}, "num_noises must be a whole number"),
        ("guide", {"reward": abs}, "guide needs a reward"),
        ("guide", {"model": "pair"}, r"give its \.base instead of a Pair"),
        ("guide", {"model": None}, r"give a function .* instead of a NoneType"),
        ("guide", {"scale": float("inf")}, "scale must be a finite number, got inf"),
        ("guide", {"scale": "1"}, "scale must be a finite number, got '1'"),
        ("guide", {"t_stop": -1}, "t_stop must be a whole number"),
        ("guide", {"pinned": np.zeros(3, bool)}, "pinned must be True or False"),
        ("draw_samples", {"schedule": 20}, "schedule must be one, such as pair.schedule"),
        ("draw_samples", {"shape": (2,)}, "shape must be .samples, .shape of one"),
        ("draw_samples", {"shape": (0, 2)}, "size of shape must be a whole number"),
        ("draw_samples", {"shape": (4, 3)}, r"model cannot be asked .* \(3,\)"),
        ("save", {"reward": None}, "save needs a reward"),
        ("toy_pair", {"count": 1}, "count must be a whole number, at least 2; got 1"),
    ],
)
def test_the_others_name_what_is_wrong(
    pair, reward, tmp_path, function, arguments, message
):
    given = {
        "score": {"reward": reward, "samples": ROWS},
        "guide": {"model": pair.base, "reward": reward},
        "draw_samples": {"model": pair.base, "schedule": pair.schedule, "shape": (4, 2)},
        "save": {"reward": reward, "folder": tmp_path / "card"},
        "toy_pair": {},
    }[function] | arguments
    if given.get("model") == "pair":
        given["model"] = pair
    with pytest.raises(ValueError, match=message) as caught:
        unchecked(getattr(dr, function))(**given)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "card").exists()


def test_a_reward_without_a_shape_asks_for_it(reward, tmp_path):
    with pytest.raises(ValueError, match="give save shape="):
        dr.save(reward._replace(shape=None), tmp_path / "card")
    dr.save(reward._replace(shape=None), tmp_path / "card", shape=(2,))
    assert dr.load(tmp_path / "card").shape == (2,)
