"""Measures of a reward against known truths, plain and under a condition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffreward as dr
from diffreward import card
from diffreward.data import Normaliser, laws
from diffreward.diffusion import DiffusionModel, cosine, discrete, linear_betas
from diffreward.extract.conditional import known_conditional_pairs
from diffreward.reward import Reward

SCHEDULE = cosine(12)
KNOWN = known_conditional_pairs()["conditional"]
LAYOUT = KNOWN.layout


@pytest.fixture(autouse=True)
def _optax_promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield


BASE = laws.gaussian(jnp.zeros(2), jnp.eye(2))
EXPERT = laws.gaussian(jnp.array([1.0, -0.5]), jnp.diag(jnp.array([0.5, 0.8])))


def plain_pair(schedule=SCHEDULE):
    def model(law):
        apply = lambda x, t: laws.eps(law, x, schedule.alpha_bar[t])
        return DiffusionModel(apply, discrete(schedule))

    return dr.make_pair(model(BASE), model(EXPERT))


def true_fn(x_t, t, schedule=SCHEDULE):
    at = schedule.alpha_bar[t]
    return laws.log_density(EXPERT, x_t, at) - laws.log_density(BASE, x_t, at)


def drawn(law, seed, count=200):
    keys = jax.random.split(jax.random.key(seed), count)
    return np.asarray(jax.vmap(lambda k: laws.sample(law, k))(keys))


def exact(reward_fn, **parts):
    return Reward(reward_fn, SCHEDULE, "known", "nats", **parts)


def conditional(reward_fn):
    return exact(reward_fn, shape=(4,), pinned=KNOWN.pinned, context=LAYOUT)


def conditional_rows(role, seed, count=200):
    x, context = LAYOUT.unpack(KNOWN.sample(role, jax.random.key(seed), count))
    return np.asarray(x), {k: np.asarray(v) for k, v in context.items()}


def true_within(x_t, t):
    return KNOWN.reward(x_t, SCHEDULE.alpha_bar[t])


def test_the_truth_has_no_limits_but_the_last():
    found = dr.measure(
        exact(true_fn), plain_pair(), drawn(BASE, 0), expert=drawn(EXPERT, 1)
    )
    m = found.measures
    assert m["fraction_of_variance_unexplained"][0] < 1e-4
    assert m["agreement_correlation"][0] > 0.95
    assert 0.8 < m["agreement_slope"][0] < 1.25
    assert 0.75 < m["auroc"][0] < 0.95
    assert m["auroc"][1] < m["auroc"][0] < m["auroc"][2]
    assert (m["samples"], m["groups"]) == (200, 200)
    assert [limit[:16] for limit in found.limits] == ["Nothing is known"]
    assert not found.conditioned


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda x, t: 0.1 * true_fn(x, t), r"grow 1\d times as fast|grow 9\.\d+ times"),
        (lambda x, t: 0.1 * true_fn(x, t), "leaves 81% of the difference"),
        (lambda x, t: -true_fn(x, t), "grow -1"),
    ],
)
def test_a_wrong_scale_is_said_to_python_as_to_the_command_line(wrong, words, tmp_path):
    found = dr.measure(exact(wrong), plain_pair(), drawn(BASE, 0))
    said = " ".join(found.limits)
    with pytest.raises(ValueError, match=words):
        raise ValueError(said)
    assert "Ranking was not measured" in said


def test_samples_are_read_in_the_units_of_the_data():
    own = Normaliser(np.array([5.0, -3.0]), np.array([2.0, 2.0]))
    there = lambda x: x * 2 + np.array([5.0, -3.0])
    x, good = drawn(BASE, 0), drawn(EXPERT, 1)
    plain = dr.measure(exact(true_fn), plain_pair(), x, expert=good)
    asked = (exact(true_fn, normaliser=own), plain_pair(), there(x))
    moved = dr.measure(*asked, expert=there(good))
    np.testing.assert_allclose(moved.measures["auroc"], plain.measures["auroc"], atol=1e-3)
    np.testing.assert_allclose(moved.rewards, plain.rewards, atol=1e-3)
    np.testing.assert_allclose(moved.log_ratios, plain.log_ratios, atol=1e-2)


def test_intervals_resample_groups():
    x = np.repeat(drawn(BASE, 0, 20), 10, 0)
    half = lambda x, t: 0.5 * true_fn(x, t) * jnp.tanh(x[0])
    each = dr.measure(exact(half), plain_pair(), x).measures
    whole = dr.measure(exact(half), plain_pair(), x, groups=np.arange(200) // 10).measures
    width = lambda m: np.ptp(m["agreement_correlation"][1:])
    assert whole["groups"] == 20
    assert width(whole) > 1.5 * width(each)


def test_under_a_condition_only_what_a_gradient_shows_is_measured():
    """A function of the condition alone, however large, is free and is not counted."""
    pair = KNOWN.exact_pair(SCHEDULE)
    rows, good = conditional_rows("base", 2), conditional_rows("expert", 3)
    shifted = lambda x, t: true_within(x, t) + 100 * jnp.sum(x[2:] ** 2)
    plain, moved = (
        dr.measure(conditional(fn), pair, rows, expert=good)
        for fn in (true_within, shifted)
    )
    for found in (plain, moved):
        assert found.conditioned
        assert found.measures["agreement_correlation"][0] > 0.9
        assert 0.8 < found.measures["agreement_slope"][0] < 1.25
        assert "auroc" not in found.measures
    name = "auroc_within_conditions"
    np.testing.assert_allclose(plain.measures[name], moved.measures[name], atol=0.02)
    assert plain.measures[name][0] > 0.6
    # Without the draws the shift would be all that is seen.
    score = lambda fn: dr.score(conditional(fn), rows)
    assert abs(np.corrcoef(score(shifted), score(true_within))[0, 1]) < 0.9


def test_under_a_condition_a_wrong_reward_is_found():
    pair = KNOWN.exact_pair(SCHEDULE)
    rows, good = conditional_rows("base", 2), conditional_rows("expert", 3)
    found = dr.measure(
        conditional(lambda x, t: -true_within(x, t)), pair, rows, expert=good
    )
    assert found.measures["agreement_correlation"][0] < -0.9
    assert found.measures["auroc_within_conditions"][0] < 0.4
    assert "grow -" in " ".join(found.limits)


def test_draws_hold_the_condition():
    """Pinned entries of the draws are those of the sample: differences of them are 0."""
    pair = KNOWN.exact_pair(SCHEDULE)
    seen = conditional(lambda x, t: 3 * x[2] - x[3] + 0.01 * x[0])
    found = dr.measure(seen, pair, conditional_rows("base", 4, 50))
    assert np.abs(found.rewards).max() < 0.1


def test_chains_that_stop_early_are_in_the_limits():
    short = linear_betas(50)
    with pytest.warns(UserWarning, match="stops before noise"):
        pair = plain_pair(short)
    rho = lambda x, t: true_fn(x, t, short)
    reward = Reward(rho, short, "known", "nats")
    found = dr.measure(reward, pair, drawn(BASE, 0, 20))
    assert "stops before noise" in found.limits[0]
    pinned = jnp.array([True, False])
    with pytest.warns(UserWarning, match="stops before noise"):
        held = dr.make_pair(
            *(
                DiffusionModel(fn, discrete(short))
                for fn in (plain_pair_base(short), lambda x, t: 0 * x)
            ),
            pinned=pinned,
        )
    told = reward._replace(pinned=pinned)
    found = dr.measure(told, held, drawn(BASE, 0, 20), expert=drawn(EXPERT, 0, 20))
    assert "agreement_slope" not in found.measures
    assert "were not held against log ratios" in " ".join(found.limits)


def plain_pair_base(schedule):
    return lambda x, t: laws.eps(BASE, x, schedule.alpha_bar[t])


def test_what_does_not_fit_is_named():
    pair, x = plain_pair(), drawn(BASE, 0, 10)
    with pytest.raises(ValueError, match="12 noise levels, the pair of 50"):
        dr.measure(exact(true_fn), plain_pair(cosine(50)), x)
    with pytest.raises(ValueError, match="group per sample, at least 3"):
        dr.measure(exact(true_fn), pair, x, groups=np.zeros(10))
    with pytest.raises(ValueError, match="group per sample"):
        dr.measure(exact(true_fn), pair, x, groups=np.arange(9))
    with pytest.raises(ValueError, match="expert must have shape"):
        dr.measure(exact(true_fn, shape=(2,)), pair, x, expert=x[:, :1])


def test_a_card_saved_from_python_has_measures_and_limits(tmp_path):
    toy = dr.toy_pair(60, num_steps=6)
    pair = dr.make_pair(toy.base, toy.expert)
    reward = dr.fit(pair, toy.train, steps=3, batch_size=16)
    found = dr.measure(reward, pair, toy.train[:40])
    dr.save(reward, tmp_path / "card", findings=found, limits=["Never in a kitchen."])
    told = card.read_card(tmp_path / "card")
    assert told["measures"]["agreement_slope"] == found.measures["agreement_slope"]
    assert told["limits"] == [*found.limits, "Never in a kitchen."]
    dr.save(reward, tmp_path / "bare")
    assert card.read_card(tmp_path / "bare")["limits"][0].startswith("Nothing was measured")
    dr.save(reward, tmp_path / "own", measures={"auroc": 0.7})
    assert not card.read_card(tmp_path / "own")["limits"]
