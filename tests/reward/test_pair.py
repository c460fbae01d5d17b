import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.data import Normaliser, laws
from diffreward.diffusion import cosine, linear
from diffreward.reward import Diffusion, make_pair
from tests.reward.oracle import eps_fn

SCHEDULE = cosine(20)


def model(mean, shift, scale=(1.0, 1.0), schedule=SCHEDULE):
    """A Gaussian N(mean, I) in data space, seen through a normaliser."""
    shift, scale = jnp.asarray(shift), jnp.asarray(scale)
    law = laws.gaussian((jnp.asarray(mean) - shift) / scale, jnp.diag(1 / scale**2))
    return Diffusion(eps_fn(law, schedule), schedule, Normaliser(shift, scale))


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


def test_different_schedules_are_refused():
    base = model([0.0, 0.0], [0.0, 0.0])
    with pytest.raises(ValueError, match=r"20 noise levels and expert 10"):
        make_pair(base, model([0.0, 0.0], [0.0, 0.0], schedule=cosine(10)))
    with pytest.raises(ValueError, match=r"alpha_bar\[\d+\] is .* in base and"):
        make_pair(base, model([0.0, 0.0], [0.0, 0.0], schedule=linear(20)))


def test_different_dimensions_are_refused():
    one = model([0.0, 0.0], [0.0, 0.0])
    law = laws.gaussian(jnp.zeros(3), jnp.eye(3))
    three = Diffusion(
        eps_fn(law, SCHEDULE), SCHEDULE, Normaliser(jnp.zeros(3), jnp.ones(3))
    )
    with pytest.raises(ValueError, match="2 dimensions and expert 3"):
        make_pair(one, three)
