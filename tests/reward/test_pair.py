import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.data import Normaliser, laws
from diffreward.diffusion import (
    DiffusionModel,
    cosine,
    discrete,
    linear,
    rectified_flow,
    variance_exploding,
)
from diffreward.extract import Source
from diffreward.extract.source import check
from diffreward.reward import log_ratio, make_pair, relative_score
from diffreward.reward.metrics import variance_by_level
from tests.reward.oracle import eps_fn

SCHEDULE = cosine(20)


def model(mean, shift, scale=(1.0, 1.0), schedule=SCHEDULE):
    """A Gaussian N(mean, I) in data space, seen through a normaliser."""
    shift, scale = jnp.asarray(shift), jnp.asarray(scale)
    law = laws.gaussian((jnp.asarray(mean) - shift) / scale, jnp.diag(1 / scale**2))
    normaliser = Normaliser(shift, scale)
    return DiffusionModel(eps_fn(law, schedule), discrete(schedule), normaliser=normaliser)


def test_shifted_coordinates_are_converted_exactly():
    same = make_pair(model([1.0, 0.0], [0.0, 0.0]), model([0.0, 2.0], [0.0, 0.0]))
    other = make_pair(model([1.0, 0.0], [0.0, 0.0]), model([0.0, 2.0], [3.0, -1.0]))
    x = jnp.array([0.2, 0.4])
    for t in (0, 8, 19):
        t = jnp.int32(t)
        np.testing.assert_allclose(other.expert(x, t), same.expert(x, t), atol=1e-4)


def test_different_scales_are_refused_with_both_values():
    with pytest.raises(ValueError, match="dimension 1 is 1 in base and 2 in expert"):
        make_pair(model([0.0, 0.0], [0.0, 0.0]), model([0.0, 0.0], [0.0, 0.0], (1, 2.0)))


def test_the_schedule_is_the_first_that_both_cover():
    narrow = model([0.0, 0.0], [0.0, 0.0], schedule=linear(50))
    wide = model([1.0, 0.0], [0.0, 0.0], schedule=cosine(200))
    other = model([1.0, 0.0], [0.0, 0.0], schedule=linear(200))
    assert make_pair(narrow, wide).schedule is narrow.process.schedule
    assert make_pair(wide, narrow).schedule is narrow.process.schedule
    # linear(200) ends at another log-SNR on either side: neither fits the other.
    schedule = make_pair(narrow, other).schedule
    assert schedule.num_steps == 200
    assert schedule is not other.process.schedule


def test_two_step_counts_give_the_exact_relative_score():
    base = model([1.0, -1.0], [0.0, 0.0], schedule=linear(1000))
    expert = model([0.0, 2.0], [0.0, 0.0], schedule=cosine(400))
    pair = make_pair(base, expert)
    x = jnp.array([0.2, 0.4])
    for t in (0, 200, pair.schedule.num_steps - 1):
        # Unit Gaussians: the relative score is sqrt(alpha_bar) (m_e - m_b).
        want = pair.schedule.sqrt_alpha_bar[t] * jnp.array([-1.0, 3.0])
        np.testing.assert_allclose(relative_score(pair, x, jnp.int32(t)), want, atol=5e-3)


def test_a_discrete_base_meets_a_denoiser_in_sigma():
    base = model([1.0, -1.0], [0.0, 0.0])
    mean = jnp.array([0.0, 2.0])
    edm = DiffusionModel(
        lambda x, sigma: mean + (x - mean) / (1 + sigma**2), variance_exploding(), "x_0"
    )
    pair = make_pair(base, edm)
    x = jnp.array([0.2, 0.4])
    for t in (0, pair.schedule.num_steps // 2):
        want = pair.schedule.sqrt_alpha_bar[t] * jnp.array([-1.0, 3.0])
        np.testing.assert_allclose(relative_score(pair, x, jnp.int32(t)), want, atol=2e-2)


PINNED = jnp.array([True, False])


@pytest.mark.parametrize("process", [rectified_flow(), variance_exploding()])
@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_what_is_pinned_is_shown_clean_at_every_level(process, shift):
    seen = []

    def watch(x, time):
        seen.append(np.asarray(x))
        return x

    coordinates = Normaliser(jnp.full(2, shift), jnp.full(2, 0.5))
    expert = DiffusionModel(watch, process, "x_0", coordinates)
    base = model([0.0, 0.0], [0.0, 0.0], (0.25, 0.25))
    x, told = jnp.array([0.7, 0.4]), (0.7 * 0.25 - shift) / 0.5
    pair = make_pair(base, expert, pinned=PINNED)
    plain = make_pair(base, expert)
    for t in range(pair.schedule.num_steps):
        pair.expert(x, jnp.int32(t))
        plain.expert(x, jnp.int32(t))
        (clean, noised), (scaled, other) = seen[-2:]
        assert clean == pytest.approx(told, abs=1e-5)
        assert noised == pytest.approx(other)  # all else is as it was
    assert abs(scaled - told) > 0.05  # at the last level, without having been told


def test_pinned_entries_of_a_pair_that_was_not_told_are_refused(key):
    # The processes scale alike, so nothing has to be said.
    same = make_pair(model([0.0, 0.0], [0.0, 0.0]), model([1.0, 0.0], [0.0, 0.0]))
    same.check_pinned(PINNED)
    mean = jnp.array([0.0, 2.0])
    edm = DiffusionModel(
        lambda x, sigma: mean + (x - mean) / (1 + sigma**2), variance_exploding(), "x_0"
    )
    base, words = model([0.0, 0.0], [0.0, 0.0]), "make_pair\\(base, expert, pinned=pinned"
    pair, told = make_pair(base, edm), make_pair(base, edm, pinned=PINNED)
    told.check_pinned(PINNED)
    pair.check_pinned(None)
    for wrong in (None, ~PINNED):
        with pytest.raises(ValueError, match=words):
            told.check_pinned(wrong)
    x, rows = jnp.ones(2), jnp.ones((4, 2))
    with pytest.raises(ValueError, match=words):
        log_ratio(pair, key, x, pinned=PINNED)
    with pytest.raises(ValueError, match=words):
        variance_by_level(lambda x, t: x.sum(), pair, key, x, pinned=PINNED)
    with pytest.raises(ValueError, match=words):
        check("loss_gap", Source(pair=pair, base=rows, pinned=PINNED))
    check("loss_gap", Source(pair=told, base=rows, pinned=PINNED))


def test_different_dimensions_are_refused():
    one = model([0.0, 0.0], [0.0, 0.0])
    law = laws.gaussian(jnp.zeros(3), jnp.eye(3))
    three = DiffusionModel(
        eps_fn(law, SCHEDULE),
        discrete(SCHEDULE),
        normaliser=Normaliser(jnp.zeros(3), jnp.ones(3)),
    )
    with pytest.raises(ValueError, match="2 dimensions and expert 3"):
        make_pair(one, three)
