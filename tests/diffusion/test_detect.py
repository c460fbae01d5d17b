import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.data import laws
from diffreward.diffusion import (
    AS_DECLARED,
    DiffusionModel,
    detect_convention,
    detect_prediction,
    discrete,
    linear,
)
from tests.diffusion.test_model import CONVENTIONS, LAW, network, outputs


def samples(count=200):
    keys = jax.random.split(jax.random.key(3), count)
    return jax.vmap(laws.sample, (None, 0))(LAW, keys)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_the_kind_of_an_exact_network_is_found(name, key):
    process, kind, levels = CONVENTIONS[name]
    sign = -1.0 if name == "flow-reversed" else 1.0
    apply = network(kind, levels, sign)
    found = detect_prediction(apply, process, samples(), key)
    assert found.prediction == kind
    assert found.confidence > 0.99
    assert max(found.explained, key=found.explained.get) == kind


@pytest.mark.parametrize("kind", ["eps", "x_0", "v", "score"])
def test_discrete_chains_are_told_apart(kind, key):
    schedule = linear(100)

    def apply(x, t):
        a, s = schedule.sqrt_alpha_bar[t], schedule.sigma[t]
        return outputs(kind, x, a, s, None)

    found = detect_prediction(apply, discrete(schedule), samples(), key)
    assert (found.prediction, found.confidence > 0.99) == (kind, True)


def test_a_network_that_knows_nothing_gets_no_confidence(key):
    # Of unit variance, as normalised data are: silence, read as v, is then a good guess.
    x_0 = np.asarray(samples())
    x_0 = (x_0 - x_0.mean(0)) / x_0.std(0)
    process = CONVENTIONS["vp-eps"][0]
    for apply in (lambda x, u: 3.0 * jnp.sin(7.0 * x), lambda x, u: 0.0 * x):
        found = detect_prediction(apply, process, x_0, key)
        assert found.confidence < 0.6
        assert max(found.explained.values()) < 0.01


def test_few_samples_are_refused(key):
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        detect_prediction(
            lambda x, u: x, CONVENTIONS["edm"][0], np.ones((1, 2), np.float32), key
        )


STEPS = linear(100)


def asked(change=lambda t: t, place=lambda x: x):
    """An exact noise prediction that is asked in a way of its own."""

    def apply(x, t):
        at = jnp.clip(change(t), 0, 99).astype(jnp.int32)
        return laws.eps(LAW, place(x), STEPS.alpha_bar[at])

    return DiffusionModel(apply, discrete(STEPS, integer=False))


@pytest.mark.parametrize(
    ("change", "best"),
    [
        (lambda t: t, AS_DECLARED),
        (lambda t: t - 10, "with time + 1"),
        (lambda t: t + 10, "with time - 1"),
        (lambda t: 99 - t, "with time reversed"),
        (lambda t: 100 * t, "with time / number of levels"),
    ],
)
def test_a_time_that_is_asked_wrongly_is_found(change, best, key):
    found = detect_convention(asked(change), samples(), key)
    assert (found.best, found.confidence > 0.95) == (best, True)
    if best != AS_DECLARED:
        assert found.explained[best] == max(found.explained.values())


@pytest.mark.parametrize(
    ("theirs", "ours", "best"),
    [
        (lambda x: x, lambda x: (x + 1) / 2, "on 2 sample - 1"),
        (lambda x: x, lambda x: 2 * x - 1, "on (sample + 1) / 2"),
    ],
)
def test_samples_of_another_range_are_found(theirs, ours, best, key):
    x = np.asarray(samples())
    found = detect_convention(asked(), ours(theirs(x)), key)
    assert (found.best, found.confidence > 0.99) == (best, True)


def test_contexts_and_pinned_entries_are_asked_as_they_are(key):
    """A model that is right only under its own context and for a clean first entry."""
    x = np.asarray(samples())
    goal = np.random.default_rng(1).normal(size=(len(x), 2)).astype(np.float32) * 3
    pinned = jnp.array([True] + [False] * (x.shape[1] - 1))
    given = {"goal": goal}

    def model(context):
        def apply(y, t):
            at = STEPS.alpha_bar[t]
            # The first entry, shown clean, says where the others are.
            mean = context["goal"].sum() + 5 * y[0]
            eps = jnp.sqrt(1 - at) * (y - jnp.sqrt(at) * mean)
            return jnp.where(pinned, 1e6, eps)  # what it says of a condition is nothing

        return DiffusionModel(apply, discrete(STEPS))

    rows = np.random.default_rng(2).normal(size=x.shape).astype(np.float32)
    rows[:, 1:] += goal.sum(1, keepdims=True) + 5 * rows[:, :1]
    apply = lambda x, time, context: model(context).apply(x, time)
    found = detect_prediction(
        apply, discrete(STEPS), rows, key, contexts=given, pinned=pinned
    )
    assert (found.prediction, found.confidence > 0.99) == ("eps", True)
    assert found.explained["eps"] > 0.4
    other = {"goal": goal[::-1].copy()}
    wrong = detect_prediction(
        apply, discrete(STEPS), rows, key, contexts=other, pinned=pinned
    )
    assert wrong.explained["eps"] < found.explained["eps"] - 0.3
    way = detect_convention(model, rows, key, contexts=given, pinned=pinned)
    assert way.best == AS_DECLARED
    assert way.explained[AS_DECLARED] == pytest.approx(found.explained["eps"], abs=1e-5)


def test_a_network_of_whole_times_is_not_asked_at_shares(key):
    table = jnp.linspace(1.0, 2.0, 100)

    def apply(x, t):
        if not jnp.issubdtype(t.dtype, jnp.integer):
            raise TypeError("an embedding takes whole times")
        return laws.eps(LAW, x, STEPS.alpha_bar[t]) * table[t] / table[t]

    found = detect_convention(DiffusionModel(apply, discrete(STEPS)), samples(), key)
    assert found.best == AS_DECLARED
    assert "with time / number of levels" not in found.explained
