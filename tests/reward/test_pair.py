import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.data import Normaliser, laws
from diffreward.diffusion import (
    DiffusionModel,
    cosine,
    discrete,
    linear,
    variance_exploding,
)
from diffreward.reward import make_pair, relative_score
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
