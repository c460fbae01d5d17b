import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.data import laws
from diffreward.data.pairs import known_pairs
from diffreward.diffusion import cosine, linear
from diffreward.reward import elbo_weights, integral_weights, log_ratio
from tests.reward.oracle import UNIT_BASE, UNIT_EXPERT, exact_pair

KNOWN = known_pairs()
COUNT = 24


@functools.cache
def samples(name):
    """Of both laws, with the true log ratio; the constant counts."""
    known = KNOWN[name]
    keys = jax.random.split(jax.random.key(1), 2)
    roles = zip(("base", "expert"), keys, strict=True)
    x_0 = jnp.concatenate([known.sample(role, key, COUNT) for role, key in roles])
    truth = jax.vmap(lambda x: known.reward(x, jnp.float32(1)))(x_0)
    return x_0, np.asarray(truth, np.float64)


def estimated(name, schedule, **options):
    known, (x_0, truth) = KNOWN[name], samples(name)
    pair = exact_pair(known.base, known.expert, schedule)
    one = lambda x, k: log_ratio(pair, k, x, **options).sum()
    keys = jax.random.split(jax.random.key(2), len(x_0))
    run = jax.jit(lambda x, k: jax.lax.map(lambda a: one(*a), (x, k)))
    return np.asarray(run(x_0, keys), np.float64), truth


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("steps", [20, 50, 100])
def test_the_integral_is_the_log_ratio_at_any_number_of_levels(name, steps):
    """Slope, value and constant of exact models of every known pair, and the sign."""
    got, truth = estimated(name, cosine(steps), num_noises=4000 // steps)
    spread = truth.std()
    assert np.polyfit(truth, got, 1)[0] == pytest.approx(1, abs=0.05)
    assert np.sqrt(np.mean((got - truth) ** 2)) < 0.1 * spread
    assert np.sqrt(np.mean((got + truth) ** 2)) > spread  # a flipped sign is no match


@pytest.mark.parametrize("name", ["gaussians", "trajectories"])
def test_the_gap_of_the_bounds_is_no_log_ratio(name):
    schedule = linear(20)
    bound, truth = estimated(name, schedule, num_noises=200, weighting="elbo")
    assert np.polyfit(truth, bound, 1)[0] > 2
    got, _ = estimated(name, schedule, num_noises=200)
    assert np.polyfit(truth, got, 1)[0] == pytest.approx(1, abs=0.06)


def test_unit_gaussians_leave_no_quadrature_error(key):
    """Their integrand is the constant |x - m_b|^2 - |x - m_e|^2: three levels suffice."""
    schedule = cosine(3)
    pair = exact_pair(UNIT_BASE, UNIT_EXPERT, schedule)
    x = jnp.array([0.7, -0.4])
    keys = jax.random.split(key, 40_000)
    values = jax.jit(jax.vmap(lambda k: log_ratio(pair, k, x).sum()))(keys)
    one = jnp.float32(1)
    truth = laws.log_density(UNIT_EXPERT, x, one) - laws.log_density(UNIT_BASE, x, one)
    assert values.mean() == pytest.approx(float(truth), abs=5 * float(values.std()) / 200)


def test_both_ends_count_once():
    """Weights times a^2 (1 - a^2) are widths; together they are half of all of [0, 1]."""
    schedule = cosine(20)
    a2, every = schedule.alpha_bar, jnp.ones(20, bool)
    weights = integral_weights(a2, every, whole=True)
    np.testing.assert_allclose((weights * a2 * (1 - a2)).sum(), 0.5, rtol=1e-4)
    weights = integral_weights(a2, every, whole=False)
    np.testing.assert_allclose((weights * a2 * (1 - a2)).sum(), (1 - a2[-1]) / 2, rtol=1e-4)


def test_a_masked_ratio_is_a_share_and_shares_add_up(key):
    schedule = cosine(20)
    pair = exact_pair(UNIT_BASE, UNIT_EXPERT, schedule)
    x, first = jnp.array([0.7, -0.4]), jnp.array([True, False])
    parts = [log_ratio(pair, key, x, mask=m) for m in (first, ~first)]
    np.testing.assert_allclose(sum(parts), log_ratio(pair, key, x), rtol=1e-4, atol=1e-4)


def test_pinned_entries_give_the_conditional_ratio(key):
    """Models of entry 0 alone, and whatever they say of entry 1."""
    schedule = cosine(20)
    pair = exact_pair(UNIT_BASE, UNIT_EXPERT, schedule)
    loud = lambda f: lambda x, t: f(x, t).at[1].set(7.0)
    pair = pair._replace(base=loud(pair.base), expert=pair.expert)
    x, pinned = jnp.array([0.7, -0.4]), jnp.array([False, True])
    keys = jax.random.split(key, 4000)
    one = lambda k: log_ratio(pair, k, x, pinned=pinned).sum()
    values = jax.jit(jax.vmap(one))(keys)
    truth = ((0.7 - 1.0) ** 2 - (0.7 + 1.5) ** 2) / 2
    assert values.mean() == pytest.approx(truth, abs=5 * float(values.std()) / 63)


def test_unknown_weightings_are_named(key):
    pair = exact_pair(UNIT_BASE, UNIT_EXPERT, cosine(3))
    with pytest.raises(ValueError, match="unknown weighting 'dpo'; did you mean 'elbo'"):
        log_ratio(pair, key, jnp.zeros(2), weighting="dpo")


def test_weights_telescope_to_the_first_snr():
    schedule = cosine(50)
    np.testing.assert_allclose(
        elbo_weights(schedule)[1:].sum(),
        (schedule.snr[0] - schedule.snr[-1]) / 2,
        rtol=1e-5,
    )


def test_pinned_entries_do_not_count(key):
    schedule = cosine(20)
    pair = exact_pair(UNIT_BASE, UNIT_EXPERT, schedule)
    pinned = jnp.array([True, True])
    got = log_ratio(pair, key, jnp.array([0.3, 0.2]), pinned=pinned)
    np.testing.assert_array_equal(got, 0.0)
