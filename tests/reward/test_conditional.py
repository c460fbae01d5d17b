"""Conditional pairs against p(x | c) whose place and width depend on c."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffreward as dr
from diffreward import extract, steer
from diffreward.data import Normaliser, laws
from diffreward.diffusion import DiffusionModel, cosine, discrete, rectified_flow
from diffreward.extract import truth
from diffreward.extract.conditional import known_conditional_pairs
from diffreward.reward import relative_score

KNOWN = known_conditional_pairs()["conditional"]
SCHEDULE = cosine(16)
LAYOUT = KNOWN.layout


@pytest.fixture(autouse=True)
def _optax_promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield


def true_fn(x_t, t):
    return KNOWN.reward(x_t, SCHEDULE.alpha_bar[t])


def swapped_fn(x_t, t):
    """The truth, told the two numbers of its context in the wrong order."""
    x, context = LAYOUT.unpack(x_t)
    return true_fn(LAYOUT.pack(x, {"observation": context["observation"][::-1]}), t)


def blind_fn(x_t, t):
    """The truth of the mean context, whatever the context."""
    x, _ = LAYOUT.unpack(x_t)
    return true_fn(LAYOUT.pack(x, LAYOUT.example()), t)


@pytest.fixture(scope="module")
def pair():
    return KNOWN.exact_pair(SCHEDULE)


@pytest.fixture(scope="module")
def within():
    x_0, context = KNOWN.sample_within(jax.random.key(1), 8, 4)
    return x_0, np.asarray(context)


def judged(reward_fn, within, truth_fn=true_fn):
    x_0, context = within
    asked = (reward_fn, truth_fn, SCHEDULE, jax.random.key(2), x_0, KNOWN.pinned)
    return truth.accuracy(truth.compare(*asked), context=context)


@pytest.fixture(scope="module")
def learned():
    with jax.numpy_dtype_promotion("standard"):
        source = truth.exact_source(KNOWN, SCHEDULE, jax.random.key(0), 8192)
        settings = extract.Training(
            steps=1500, batch_size=128, learning_rate=3e-3, width=64, depth=2
        )
        return extract.fit("gradient_alignment", source, settings)


def test_the_pair_is_exact_and_silent_about_the_context(pair):
    x = KNOWN.sample("expert", jax.random.key(3), 1)[0]
    for t in range(SCHEDULE.num_steps):
        t = jnp.int32(t)
        score = jax.grad(true_fn)(x, t)
        found = relative_score(pair, x, t)
        np.testing.assert_allclose(found[:2], score[:2], rtol=2e-3, atol=1e-4)
        np.testing.assert_array_equal(found[2:], 0)
        np.testing.assert_array_equal(pair.base(x, t)[2:], 0)


def test_a_learned_reward_is_as_good_as_an_unconditional_one(learned, within):
    found = judged(learned.reward_fn, within)
    assert found.gradient_error < 0.05
    assert found.value_error < 0.08
    assert found.rank_correlation > 0.995


@pytest.mark.parametrize("wrong", [swapped_fn, blind_fn])
def test_a_reward_of_another_context_fails(wrong, within):
    found = judged(wrong, within)
    assert found.gradient_error > 0.3
    assert found.value_error > 0.3


def test_a_constant_per_context_is_free_and_so_is_not_counted(within):
    shifted = lambda x_t, t: true_fn(x_t, t) + 100 * x_t[2] ** 2
    found = judged(shifted, within)
    assert found.gradient_error < 1e-4
    assert found.value_error < 1e-4


def test_steering_under_a_context_turns_the_base_into_the_expert(pair, learned):
    context = {"observation": jnp.array([0.7, -0.5])}
    law = KNOWN.expert(context)
    guided = lambda c: dr.guide(pair.given(c).base, learned.given(c))
    rows = {"observation": jnp.tile(context["observation"], (600, 1))}
    x = dr.draw_samples(guided, SCHEDULE, (600, 2), context=rows)
    exact = dr.draw_samples(
        lambda c: pair.given(c).expert, SCHEDULE, (600, 2), context=rows
    )
    np.testing.assert_allclose(x.mean(0), exact.mean(0), atol=0.06)
    np.testing.assert_allclose(exact.mean(0), law.means[0], atol=0.12)
    base = dr.draw_samples(lambda c: pair.given(c).base, SCHEDULE, (600, 2), context=rows)
    assert np.abs(base.mean(0) - law.means[0]).max() > 0.5


def test_every_sample_is_drawn_under_its_own_context(pair):
    told = jnp.array([[0.9, 0.9], [-0.9, -0.9]])
    rows = {"observation": jnp.repeat(told, 300, 0)}
    x = dr.draw_samples(lambda c: pair.given(c).base, SCHEDULE, (600, 2), context=rows)
    for half, c in zip((x[:300], x[300:]), told, strict=True):
        mean = KNOWN.base({"observation": c}).means[0]
        np.testing.assert_allclose(half.mean(0), mean, atol=0.2)


def test_smc_takes_a_pair_under_a_context_like_any_pair(pair):
    context = {"observation": jnp.array([0.3, 0.4])}
    alone = lambda law: lambda x, t: laws.eps(law(context), x, SCHEDULE.alpha_bar[t])
    true = lambda x, t: true_fn(LAYOUT.pack(x, context), t)
    draw = lambda base: steer.smc_sample(base, true, SCHEDULE, jax.random.key(4), (2,), 64)
    found, wanted = draw(pair.given(context).base), draw(alone(KNOWN.base))
    np.testing.assert_allclose(found.x_0, wanted.x_0, atol=1e-3)
    np.testing.assert_allclose(found.log_weights, wanted.log_weights, atol=1e-2)
    assert np.ptp(found.log_weights) > 0.1


def test_given_agrees_with_the_whole(pair, learned):
    x = KNOWN.sample("base", jax.random.key(5), 3)
    for row in x:
        alone, context = LAYOUT.unpack(row)
        t = jnp.int32(3)
        told, rho = pair.given(context), learned.given(context)
        np.testing.assert_allclose(told.base(alone, t), pair.base(row, t)[:2], rtol=1e-5)
        np.testing.assert_allclose(rho.reward_fn(alone, t), learned.reward_fn(row, t))
        assert rho.shape == (2,)
        assert rho.network is None
        assert told.pinned is None
        scored = dr.score(rho, alone[None])
        assert scored.shape == (1,)


def test_coordinates_of_the_context_go_with_the_reward():
    """Contexts far from zero: the network sees them in their coordinates, models do not."""
    far = lambda context: {"observation": context["observation"] / 50 - 3}
    place = Normaliser(np.array([150.0, 150.0]), np.array([50.0, 50.0]))
    layout = dr.context_layout((2,), {"observation": (2,)}, observation=place)

    def model(law):
        def given(context):
            told = law(far(context))
            apply = lambda x, t: laws.eps(told, x, SCHEDULE.alpha_bar[t])
            return DiffusionModel(apply, discrete(SCHEDULE))

        return given

    pair = dr.make_pair(model(KNOWN.base), model(KNOWN.expert), context=layout)
    x, near = LAYOUT.unpack(KNOWN.sample("expert", jax.random.key(6), 256))
    told = {"observation": 50 * (near["observation"] + 3)}
    exact = KNOWN.exact_pair(SCHEDULE)
    packed = layout.normalised(layout.pack(x, told))
    row, t = 7, jnp.int32(2)
    np.testing.assert_allclose(
        pair.expert(packed[row], t)[:2],
        exact.expert(LAYOUT.pack(x, near)[row], t)[:2],
        atol=1e-4,
    )
    reward = dr.fit(pair, (x, told), steps=3, batch_size=16)
    one = {k: v[row] for k, v in told.items()}
    np.testing.assert_allclose(
        pair.given(one).expert(x[row], t), pair.expert(packed[row], t)[:2], atol=1e-4
    )
    np.testing.assert_array_equal(reward.normaliser.scale, [1, 1, 50, 50])
    np.testing.assert_array_equal(reward.normaliser.shift, [0, 0, 150, 150])
    np.testing.assert_allclose(
        reward.given(one).reward_fn(x[row], t), reward.reward_fn(packed[row], t), rtol=1e-4
    )
    assert np.isfinite(dr.score(reward, (x[:4], told_rows(told, 4)), num_noises=1)).all()


def told_rows(context, count):
    return {k: v[:count] for k, v in context.items()}


def test_a_conditional_score_is_that_under_its_context(learned):
    """Noise falls on the sample alone: the context is told clean at every level."""
    rows = KNOWN.sample("base", jax.random.key(8), 4)
    x, context = LAYOUT.unpack(rows)
    seen = []

    def spy(x_t, t):
        jax.debug.callback(lambda c: seen.append(np.asarray(c)), x_t[2:])
        return learned.reward_fn(x_t, t)

    watched = learned._replace(reward_fn=spy)
    dr.score(watched, (x[:1], told_rows(context, 1)), as_="ranking", num_noises=2)
    assert seen
    for told in seen:
        assert np.isclose(told.reshape(-1, 2), np.asarray(rows[0, 2:])).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p, r, x, c: dr.fit(p, x), "samples must come with contexts"),
        (lambda p, r, x, c: dr.score(r, x), "samples must come with contexts"),
        (lambda p, r, x, c: dr.score(r, (x, {})), "lacks 'observation'"),
        (
            lambda p, r, x, c: dr.score(r, (x, {"observation": c[:3]})),
            r"'observation' has shape \(3, 2\), must have \(5, 2\)",
        ),
        (
            lambda p, r, x, c: dr.score(r, (x, {"observation": c * np.nan})),
            "context 'observation' holds a number that is not finite",
        ),
        (lambda p, r, x, c: r.given({}), "lacks 'observation'"),
        (lambda p, r, x, c: p.given({"goal": c[0]}), "unknown 'goal'"),
        (
            lambda p, r, x, c: dr.guide(
                DiffusionModel(lambda x, t: x, discrete(SCHEDULE)), r
            ),
            r"guide\(model, reward.given\(context\)\)",
        ),
        (
            lambda p, r, x, c: dr.draw_samples(
                lambda c: p.given(c).base, SCHEDULE, (4, 2), context={"observation": c}
            ),
            "'observation' has 5 rows for 4 samples",
        ),
        (
            lambda p, r, x, c: dr.make_pair(
                lambda c: DiffusionModel(lambda x, t: x, discrete(SCHEDULE)),
                lambda c: DiffusionModel(lambda x, t: x, discrete(SCHEDULE)),
            ),
            r"base is a function, .*need make_pair\(..., context=context_layout",
        ),
        (
            lambda p, r, x, c: dr.make_pair(
                DiffusionModel(lambda x, t: x, discrete(SCHEDULE)),
                lambda c: DiffusionModel(lambda x, t: x, discrete(SCHEDULE)),
                context=LAYOUT,
            ),
            "base is a DiffusionModel; with a context it must be a function",
        ),
        (
            lambda p, r, x, c: dr.make_pair(lambda c: None, lambda c: None, context=LAYOUT),
            "what base answers is a NoneType",
        ),
    ],
)
def test_what_does_not_fit_together_is_named(pair, learned, call, words):
    x, context = LAYOUT.unpack(KNOWN.sample("base", jax.random.key(9), 5))
    with pytest.raises(ValueError, match=words):
        call(pair, learned, np.asarray(x), np.asarray(context["observation"]))


def test_pairs_and_rewards_of_samples_alone_take_no_context():
    toy = dr.toy_pair(50, num_steps=4)
    plain = dr.make_pair(toy.base, toy.expert)
    reward = dr.fit(plain, toy.train, steps=2, batch_size=8)
    for one in (plain, reward):
        with pytest.raises(ValueError, match="takes no context"):
            one.given({"goal": jnp.zeros(2)})
    with pytest.raises(ValueError, match="takes no context"):
        reward.rows(toy.train, {"goal": jnp.zeros((100, 2))})


def test_two_processes_are_brought_together_under_a_context():
    """A flow expert beside a discrete base: what it is told is still the clean context."""
    seen = []

    def expert(context):
        seen.append(context)
        return DiffusionModel(lambda x, t: 0 * x + context["c"], rectified_flow(), "eps")

    def base(context):
        del context
        return DiffusionModel(lambda x, t: x, discrete(SCHEDULE), "eps")

    layout = dr.context_layout((2,), {"c": (2,)})
    pair = dr.make_pair(base, expert, context=layout)
    told = jnp.array([0.7, -0.2])
    for t in (0, 7, pair.schedule.num_steps - 1):
        packed = layout.pack(jnp.ones(2), {"c": told})
        np.testing.assert_allclose(pair.expert(packed, jnp.int32(t))[:2], told, atol=1e-6)


def test_a_conditional_pair_is_that_of_its_models_under_every_context():
    """Other processes, coordinates that are shifted, and an entry of the sample pinned."""
    ours = Normaliser(np.array([1.0, -2.0]), np.array([2.0, 2.0]))
    theirs = Normaliser(np.array([0.0, 3.0]), np.array([1.0, 1.0]))
    pinned = jnp.array([True, False])
    levels = discrete(SCHEDULE)
    flow = rectified_flow()

    def base(context):
        return DiffusionModel(lambda x, t: x * context["c"], levels, "eps", ours)

    def expert(context):
        return DiffusionModel(lambda x, t: x - t * context["c"], flow, "eps", theirs)

    layout = dr.context_layout((2,), {"c": (2,)})
    pair = dr.make_pair(base, expert, pinned=pinned, context=layout)
    x = jnp.array([0.4, -1.1])
    for c in (jnp.array([0.7, -0.2]), jnp.array([-1.0, 0.5])):
        told, wanted = (
            pair.given({"c": c}),
            dr.make_pair(base({"c": c}), expert({"c": c}), pinned=pinned),
        )
        np.testing.assert_array_equal(told.pinned, pinned)
        for t in map(jnp.int32, (0, 5, 11)):
            for name in ("base", "expert"):
                found, exact = (getattr(p, name)(x, t) for p in (told, wanted))
                np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-6)


PLACE = Normaliser(np.array([150.0, -40.0]), np.array([50.0, 20.0]))
"""Coordinates of a context in units of its own."""


def placed_pair():
    """A pair whose contexts are told in units far from the network's coordinates."""
    layout = dr.context_layout((2,), {"observation": (2,)}, observation=PLACE)
    still = lambda context: DiffusionModel(lambda x, t: x, discrete(SCHEDULE))
    moved = lambda context: DiffusionModel(lambda x, t: x + 0.1, discrete(SCHEDULE))
    return dr.make_pair(still, moved, context=layout)


def test_what_learns_sees_contexts_in_their_coordinates(monkeypatch, learned):
    pair = placed_pair()
    seen = []

    def watched(name, source, *settings, **more):
        del name, settings, more
        seen.append(source)
        return learned

    monkeypatch.setattr(extract, "fit", watched)
    x = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    told = {"observation": x * [50, 20] + [150, -40]}
    own = Normaliser(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    dr.fit(pair, base=(x, told), expert=(x[::-1], told), normaliser=own)
    np.testing.assert_allclose(seen[0].base, np.concatenate([x, x], 1), atol=1e-5)
    np.testing.assert_allclose(seen[0].expert, np.concatenate([x[::-1], x], 1), atol=1e-5)
    np.testing.assert_array_equal(seen[0].normaliser.shift, [1, 2, 150, -40])
    np.testing.assert_array_equal(seen[0].normaliser.scale, [3, 4, 50, 20])


def test_every_extractor_keeps_the_coordinates_of_contexts():
    pair = placed_pair()
    rows = np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)
    reward = extract.fit(
        "gradient_alignment",
        extract.Source(pair=pair, base=rows),
        extract.Training(steps=1, batch_size=4, width=8, depth=1),
    )
    np.testing.assert_array_equal(reward.normaliser.shift, [0, 0, 150, -40])
    np.testing.assert_array_equal(reward.normaliser.scale, [1, 1, 50, 20])


def test_a_guide_leaves_the_conditions_of_its_reward_alone(pair, learned):
    row, t = KNOWN.sample("base", jax.random.key(10), 1)[0], jnp.int32(4)
    pull = jax.grad(learned.reward_fn)(row, t)
    assert np.all(np.abs(pull) > 0)  # also along the context
    for steered in (
        dr.guide(pair.base, learned),
        dr.guide(pair.base, learned, pinned=learned.pinned),
    ):
        moved = steered(row, t) - pair.base(row, t)
        assert np.all(np.abs(moved[:2]) > 0)
        np.testing.assert_array_equal(moved[2:], 0)
