import functools
import json
import os
import re
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import diffreward
from diffreward.card import (
    NotExportable,
    load,
    numpy_source,
    open_card,
    read_card,
    save,
    sha256,
    verify,
)
from diffreward.data import Normaliser, laws
from diffreward.diffusion import cosine
from diffreward.networks import (
    AsTrajectory,
    DifferenceOfSquares,
    EnergyDifference,
    InnerProductReward,
    LevelScaled,
    ScalarReward,
    SingleStepRewardMLP,
    TemporalUnet,
    TrajectoryMLP,
    ValueFunction,
    WindowReward,
    build,
    describe,
)
from diffreward.reward import Reward, network_reward, score, score_samples
from tests.reward.oracle import BASE, EXPERT, exact_reward

SHAPE = (8, 6)
SCHEDULE = cosine(6)
NETWORKS = {
    "inner": LevelScaled(
        AsTrajectory(InnerProductReward(TrajectoryMLP(16, 2))),
        (1.0, 1.5, 2.0, 3.0, 4.0, 5.0),
    ),
    "energies": EnergyDifference(TrajectoryMLP(16, 1)),
    "scalar": ScalarReward(TrajectoryMLP(16, 2, time_width=8)),
    "squares": DifferenceOfSquares(TrajectoryMLP(16, 1, out_dim=8)),
    "windows": WindowReward(SingleStepRewardMLP((8, 4), 4), 4, strided=True),
    "value": ValueFunction(dim=16, dim_mults=(1, 2)),
    "unet": InnerProductReward(TemporalUnet(8, (1,), attention=True)),
}


@functools.cache
def parameters(name):
    x, t = jnp.zeros(SHAPE), jnp.zeros((), jnp.int32)
    shapes = jax.eval_shape(NETWORKS[name].init, jax.random.key(1), x, t)
    rng = np.random.default_rng(1)
    draw = lambda s: jnp.asarray(rng.normal(0, 0.4, s.shape).astype(np.float32))
    # No zeros, as the biases of a fresh network are: a lost one would not show.
    return jax.tree.map(draw, shapes)


def made(name="inner", **parts):
    network, params = NETWORKS[name], parameters(name)
    parts.setdefault(
        "normaliser",
        Normaliser(
            np.arange(6.0, dtype=np.float32), np.linspace(1, 2, 6, dtype=np.float32)
        ),
    )
    return network_reward(network, params, SCHEDULE, "gradient_alignment", "nats", **parts)


def samples(count=5):
    return np.random.default_rng(7).normal(2, 2, (count, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_card_scores_the_same_after_loading_and_in_numpy_alone(name, tmp_path):
    reward = made(name)
    want = score_samples(reward, samples())
    save(reward, tmp_path / "card", SHAPE)
    loaded = diffreward.load(tmp_path / "card")
    np.testing.assert_array_equal(score_samples(loaded, samples()), want)
    np.save(tmp_path / "x.npy", samples())
    # A process that cannot import anything but NumPy and the standard library.
    blocked = ["jax", "flax", "safetensors", "diffreward", "scipy", "torch"]
    code = (
        f"import sys, runpy; sys.modules.update(dict.fromkeys({blocked!r}))\n"
        f"sys.argv = ['score.py', *sys.argv[1:]]\n"
        "runpy.run_path('card/score.py', run_name='__main__')\n"
    )

    def run(*argv):
        call = [sys.executable, "-c", code, "x.npy", *argv]
        return subprocess.run(
            call, cwd=tmp_path, check=True, capture_output=True, text=True
        )

    said = run("y.npy").stderr
    assert (
        said
        == "nats: log density of the expert over the base, up to a constant per level\n"
    )
    got = np.load(tmp_path / "y.npy")
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())
    if name == "scalar":  # the forms do not depend on the network
        done = run("--as", "ranking")
        assert "without a unit" in done.stderr
        want = score_samples(reward, samples(), as_="ranking")
        np.testing.assert_allclose(np.array(done.stdout.split(), float), want, rtol=1e-4)


@pytest.mark.parametrize(("form", "levels"), [("value", 1), ("nats", 1), ("ranking", 6)])
def test_a_score_is_a_mean_over_noises_and_levels(form, levels):
    reward = made()
    x = samples(1)[0]
    rng = np.random.default_rng(3)
    eps = rng.standard_normal((6, 2, *SHAPE), np.float32)
    y = (x - reward.normaliser.shift) / reward.normaliser.scale
    values = [
        reward.reward_fn(
            jnp.asarray(SCHEDULE.sqrt_alpha_bar[t] * y + SCHEDULE.sigma[t] * e),
            jnp.int32(t),
        )
        for t in range(levels)
        for e in eps[t]
    ]
    [got] = score_samples(reward, x[None], seed=3, num_noises=2, as_=form)
    np.testing.assert_allclose(got, np.mean(values), rtol=1e-5)


def test_batches_and_fillers_change_nothing():
    reward = made()
    want = score_samples(reward, samples(7), batch_size=256)
    np.testing.assert_allclose(
        score_samples(reward, samples(7), batch_size=3), want, rtol=1e-5
    )
    with pytest.raises(ValueError, match="sample 1 holds a number that is not finite"):
        score_samples(reward, np.stack([samples(1)[0], np.full(SHAPE, np.nan, np.float32)]))


def test_a_value_is_the_log_ratio_and_a_ranking_is_not():
    """The exact reward of two Gaussians, at 50 levels: spreads against the truth's."""
    schedule = cosine(50)
    rho = exact_reward(BASE, EXPERT, schedule)
    reward = Reward(rho, schedule, "by hand", "nats")
    x = np.random.default_rng(0).normal(0, 1, (200, 2)).astype(np.float32)
    clean = jnp.float32(1)
    truth = jax.vmap(
        lambda x: laws.log_density(EXPERT, x, clean) - laws.log_density(BASE, x, clean)
    )(x)
    slope = lambda form: np.polyfit(truth, score_samples(reward, x, as_=form), 1)[0]
    assert slope("value") == pytest.approx(1, abs=0.05)
    assert slope("ranking") < 0.5


def test_forms_and_units_that_do_not_fit_are_refused():
    reward = Reward(lambda x, t: x.sum(), SCHEDULE, "return_regression", "returns")
    assert len(score_samples(reward, samples(2))) == 2
    with pytest.raises(ValueError, match="a return_regression reward is not in nats but"):
        score_samples(reward, samples(2), as_="nats")
    with pytest.raises(ValueError, match="unknown form of a score 'rank'; did you mean"):
        score_samples(reward, samples(2), as_="rank")


@pytest.mark.parametrize("units", ["returns", "preferences"])
def test_a_card_keeps_the_units_of_its_reward(units, tmp_path):
    save(made()._replace(units=units), tmp_path / "card", SHAPE)
    assert read_card(tmp_path / "card")["units"] == units
    assert load(tmp_path / "card").units == units
    with pytest.raises(ValueError, match="units must be one of nats, returns, preferences"):
        save(made()._replace(units="bits"), tmp_path / "other", SHAPE)
    assert os.listdir(tmp_path) == ["card"]


def test_one_sample_under_a_key(key):
    reward = made()
    x = jnp.asarray(samples(2))
    a, b = (score(reward, row, key, 3) for row in x)
    assert np.isfinite([a, b]).all()
    assert a != b


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_built_again_from_its_description(name):
    text = json.dumps(describe(NETWORKS[name]))
    assert build(json.loads(text)) == NETWORKS[name]


def test_unknown_networks_are_named():
    with pytest.raises(ValueError, match="network Dense cannot be described"):
        describe(nn.Dense(3))
    with pytest.raises(
        ValueError, match="unknown network 'Foo'; did you mean .*known: AsTrajectory, Diff"
    ):
        build({"name": "Foo"})
    with pytest.raises(ValueError, match="TrajectoryMLP 'wdth'; did you mean 'width'"):
        build({"name": "TrajectoryMLP", "wdth": 3})


def test_an_operation_without_numpy_form_is_named():
    with pytest.raises(NotExportable, match="'sort'"):
        numpy_source(lambda p, x: jnp.sort(x), {}, jnp.zeros(3))


def test_what_the_card_says(tmp_path):
    figure = tmp_path / "map.png"
    figure.write_bytes(b"png")
    save(
        made(),
        tmp_path / "card",
        SHAPE,
        provenance={"base": "abc", "expert": "def"},
        measures={"auroc": [0.9, 0.8, 0.95]},
        limits=["Not outside the maze."],
        figures={"map.png": figure},
    )
    card = read_card(tmp_path / "card")
    assert card["provenance"] == {"base": "abc", "expert": "def"}
    assert card["measures"]["auroc"] == [0.9, 0.8, 0.95]
    assert card["limits"] == ["Not outside the maze."]
    assert (tmp_path / "card/figures/map.png").read_bytes() == b"png"


def test_rewards_without_weights_and_folders_in_the_way(tmp_path):
    free = Reward(lambda x, t: x.sum(), SCHEDULE, "loss_gap", "errors")
    with pytest.raises(ValueError, match="a loss_gap reward has no weights of its own"):
        save(free, tmp_path / "card", SHAPE)
    save(made(), tmp_path / "card", SHAPE)
    with pytest.raises(ValueError, match="card exists; choose another folder"):
        save(made(), tmp_path / "card", SHAPE)
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="mine exists"):
        save(made(), tmp_path / "mine", SHAPE, replace=True)
    save(made("scalar"), tmp_path / "card", SHAPE, replace=True)
    assert read_card(tmp_path / "card")["network"]["name"] == "ScalarReward"
    assert sorted(os.listdir(tmp_path)) == ["card", "mine"]


def edit(folder, **entries):
    path = folder / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def damage_weights(folder):
    raw = bytearray((folder / "weights.safetensors").read_bytes())
    raw[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(raw)


def lose_tensor(folder):
    path = folder / "weights.safetensors"
    tensors = load_file(path)
    del tensors["params/params/net/net/net/head/bias"]
    save_file(tensors, path)
    edit(folder, weights_sha256=sha256(path))


def not_finite(folder):
    path = folder / "weights.safetensors"
    tensors = load_file(path)
    tensors["params/params/net/net/net/head/bias"][0] = np.nan
    save_file(tensors, path)
    edit(folder, weights_sha256=sha256(path))


def more_levels(folder):
    path = folder / "weights.safetensors"
    tensors = load_file(path)
    longer = lambda k, v: np.resize(v, 9) if k.startswith("schedule/") else v
    save_file({k: longer(k, v) for k, v in tensors.items()}, path)
    edit(folder, weights_sha256=sha256(path))


def network(**settings):
    """A network as a card describes it, with other settings of its perceptron."""
    inner = describe(TrajectoryMLP(16, 2)) | settings
    return describe(InnerProductReward(TrajectoryMLP(16, 2))) | {"net": inner}


def windows(window):
    """A network as a card describes it, on windows of so many steps."""
    return describe(WindowReward(SingleStepRewardMLP((8, 4), window), window))


DAMAGE = {
    "nan": (not_finite, "head/bias holds a number that is not finite"),
    "levels": (more_levels, "scales for 6 noise levels, the weights have 9"),
    "deep": (lambda f: edit(f, network=network(depth=10**8)), "depth is more than the"),
    "deeper": (lambda f: edit(f, network=network(depth=100)), "100 blocks, but the wei"),
    "wide": (lambda f: edit(f, network=network(width=10**9)), "width is more than the"),
    "negative": (lambda f: edit(f, network=network(depth=-1)), "depth cannot be -1"),
    "no width": (lambda f: edit(f, network=network(width=0)), "width cannot be 0"),
    "no window": (lambda f: edit(f, network=windows(0)), "window cannot be 0"),
    "odd window": (lambda f: edit(f, network=windows(3)), "not a multiple of window 3"),
    "a yes": (lambda f: edit(f, network=network(depth=True)), "depth cannot be True"),
    "parent": (
        lambda f: edit(f, network=network(parent="x")),
        "unknown setting .* 'parent'",
    ),
    "no net": (lambda f: edit(f, network=network() | {"net": None}), "must be a network"),
    "shapes": (lambda f: edit(f, shape=[0, 6]), "shape must be 1 to 8 whole numbers"),
    "large": (lambda f: edit(f, shape=[4000, 100_000]), "asks for 1,526 MiB"),
    "unknown": (lambda f: edit(f, licence="x"), "has the unknown entry 'licence'"),
    "measures": (lambda f: edit(f, measures={"auroc": "1"}), "measures must be an object"),
    "limits": (lambda f: edit(f, limits=[3]), "limits must be a list of sentences"),
    "figures": (lambda f: edit(f, figures={"../x": "0" * 64}), "figures must be an object"),
    "nested": (
        lambda f: (f / "card.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000),
        "card.json is damaged",
    ),
    "no card": (lambda f: (f / "card.json").unlink(), "is no reward card: it has no card"),
    "not json": (lambda f: (f / "card.json").write_text("{"), r"card.json is damaged \("),
    "foreign": (lambda f: edit(f, format="model-card"), "has format 'model-card'; this"),
    "a list": (lambda f: (f / "card.json").write_text("[]"), "has format None"),
    "no weights": (lambda f: (f / "weights.safetensors").unlink(), "is missing; the card"),
    "flipped bit": (damage_weights, "is not the file the card was made with"),
    "cut entry": (lambda f: edit(f, network={"name": "Foo"}), "unknown network 'Foo'"),
    "lost tensor": (lose_tensor, "the weights lack params/net/net/net/head/bias"),
    "other network": (
        lambda f: edit(f, network=describe(InnerProductReward(TrajectoryMLP(8, 2)))),
        "cannot be rebuilt: the weights lack params/net/film/bias",
    ),
    "other units": (lambda f: edit(f, units="bits"), "units must be one of nats, returns"),
    "other shape": (lambda f: edit(f, shape=[9, 6]), "the network needs"),
    "other width": (lambda f: edit(f, shape=[8, 5]), "normaliser.scale has shape"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_and_foreign_cards_are_refused_in_one_line(name, tmp_path):
    save(made(), tmp_path / "card", SHAPE)
    harm, message = DAMAGE[name]
    harm(tmp_path / "card")
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path / "card")
    assert not re.search("\n", str(caught.value))


def test_a_card_without_numpy_form_says_so(tmp_path, monkeypatch):
    from diffreward.card import files

    def refuse(*_):
        raise NotExportable("the network uses 'sort'")

    monkeypatch.setattr(files, "program", refuse)
    save(made(), tmp_path / "card", SHAPE)
    assert not (tmp_path / "card/score.py").exists()
    assert "No NumPy program" in read_card(tmp_path / "card")["limits"][0]


def test_what_is_no_part_of_a_card_is_never_replaced(tmp_path):
    save(made(), tmp_path / "card", SHAPE)
    (tmp_path / "card.old").mkdir()
    (tmp_path / "card.partial").mkdir()
    save(made(), tmp_path / "card", SHAPE, replace=True)
    (tmp_path / "card/notes.txt").write_text("precious")
    with pytest.raises(ValueError, match="notes.txt is no part of the card"):
        save(made(), tmp_path / "card", SHAPE, replace=True)
    assert (tmp_path / "card/notes.txt").read_text() == "precious"
    (tmp_path / "link").symlink_to(tmp_path / "card")
    with pytest.raises(ValueError, match="link exists and is no card"):
        save(made(), tmp_path / "link", SHAPE, replace=True)
    assert sorted(os.listdir(tmp_path)) == ["card", "card.old", "card.partial", "link"]


def test_programs_and_figures_are_held_against_the_card(tmp_path):
    def verified(folder):
        reward, about = open_card(folder)
        return verify(folder, about, reward)

    picture = tmp_path / "map.png"
    picture.write_bytes(b"png")
    folder, other = tmp_path / "card", tmp_path / "other"
    save(made(), folder, SHAPE, figures={"map.png": picture})
    assert verified(folder)
    program = folder / "score.py"
    source = program.read_text()
    program.write_text("print(1)\n" + source)
    with pytest.raises(ValueError, match="score.py is not the file the card was made with"):
        verified(folder)
    edit(folder, score_sha256=sha256(program))
    with pytest.raises(ValueError, match="is not the program that this reward makes"):
        verified(folder)
    edit(folder, jax="0.0.1")  # another version writes another program: not known
    assert not verified(folder)
    (folder / "figures/map.png").write_bytes(b"other")
    with pytest.raises(ValueError, match="map.png is not the file"):
        verified(folder)
    save(made("scalar"), other, SHAPE)
    (other / "weights.safetensors").write_bytes(
        (folder / "weights.safetensors").read_bytes()
    )
    np.save(tmp_path / "x.npy", samples())
    done = subprocess.run(
        [sys.executable, "score.py", "../x.npy"],
        cwd=other,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert re.fullmatch(r"error: .* is not the file this program .*\n", done.stderr)


def test_noises_that_no_memory_holds_are_refused():
    with pytest.raises(ValueError, match="noises at 6 levels need .* MiB: take fewer"):
        score_samples(made(), samples(), num_noises=2**20, as_="ranking")


def test_the_older_address_of_a_reward_is_the_same_record():
    from diffreward.card import reward

    assert reward.Reward is Reward
    assert reward.network_reward is network_reward
