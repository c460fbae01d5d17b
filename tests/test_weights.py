"""The effective sample size against its definition, on the host and traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward import measures, steer
from diffreward.data.pairs import tilt_rows
from diffreward.steer.select import tilt_ess
from diffreward.weights import effective_sample_size

LOG_WEIGHTS = np.random.default_rng(0).normal(size=40) * 2


def by_definition(log_weights):
    w = np.exp(log_weights)
    return w.sum() ** 2 / np.square(w).sum()


def test_it_is_the_square_of_the_sum_over_the_sum_of_squares():
    wanted = by_definition(LOG_WEIGHTS)
    assert effective_sample_size(LOG_WEIGHTS) == pytest.approx(wanted, rel=1e-12)
    assert effective_sample_size(LOG_WEIGHTS + 1e4) == pytest.approx(wanted, rel=1e-9)
    traced = jax.jit(effective_sample_size)(jnp.asarray(LOG_WEIGHTS, jnp.float32))
    assert float(traced) == pytest.approx(wanted, rel=1e-5)


def test_equal_weights_count_all_and_one_weight_counts_one():
    assert effective_sample_size(np.zeros(7)) == pytest.approx(7)
    assert effective_sample_size(np.array([0.0, -np.inf])) == pytest.approx(1)


@pytest.mark.parametrize("none", [np.zeros(0), np.full(3, -np.inf)])
def test_no_weight_is_named(none):
    with pytest.raises(ValueError, match="no weight is positive"):
        effective_sample_size(none)


def test_everybody_uses_the_same_one():
    assert measures.effective_sample_size is steer.effective_sample_size
    share = tilt_ess(LOG_WEIGHTS, 0.5)
    assert share == pytest.approx(by_definition(0.5 * LOG_WEIGHTS) / 40, rel=1e-12)
    many = np.tile(LOG_WEIGHTS, 50)
    found = tilt_rows(many, 2.0, 5, seed=0).effective
    assert found == pytest.approx(by_definition(many / 2), rel=1e-12)
