import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diffreward.data import fit_gaussian, fit_limits, normalise, unnormalise

VALUES = st.floats(-1e4, 1e4, width=32)
ROWS = hnp.arrays(np.float32, st.tuples(st.integers(1, 9), st.just(3)), elements=VALUES)


@settings(max_examples=100, deadline=None)
@given(x=ROWS, constant=VALUES, fit=st.sampled_from([fit_limits, fit_gaussian]))
def test_round_trip_with_a_constant_dimension(x, constant, fit):
    x[:, 1] = constant
    normaliser = fit(x)
    x_norm = normalise(normaliser, x)
    assert np.isfinite(x_norm).all()
    np.testing.assert_allclose(normaliser.scale[1], 1)
    np.testing.assert_allclose(x_norm[:, 1], 0, atol=1e-3)
    tolerance = 1e-5 * np.abs(x).max() + 1e-6
    np.testing.assert_allclose(unnormalise(normaliser, x_norm), x, atol=tolerance)


def test_limits_reach_both_ends_and_invert_the_affine_map():
    x = np.array([[-2, 10], [0, 30], [6, 20]], np.float32)
    expected = [[-1, -1], [-0.5, 1], [1, 0]]
    np.testing.assert_allclose(normalise(fit_limits(x), x), expected, atol=1e-6)


def test_gaussian_has_zero_mean_and_unit_deviation():
    x = np.random.default_rng(0).normal(3, 7, (1000, 2)).astype(np.float32)
    x_norm = normalise(fit_gaussian(x), x)
    np.testing.assert_allclose(x_norm.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(x_norm.std(0), 1, rtol=1e-5)


def test_numpy_and_jax_agree_for_any_leading_axes():
    x = np.random.default_rng(1).normal(size=(4, 5, 3)).astype(np.float32)
    normaliser = fit_limits(x)
    on_device = normalise(normaliser, jnp.asarray(x))
    assert isinstance(on_device, jnp.ndarray)
    np.testing.assert_allclose(on_device, normalise(normaliser, x), rtol=1e-6)
    np.testing.assert_array_equal(
        normalise(normaliser, x[2, 3]), normalise(normaliser, x)[2, 3]
    )


def test_no_rows_is_an_error():
    with pytest.raises(ValueError, match=r"no rows.*\(0, 3\)"):
        fit_limits(np.zeros((0, 3), np.float32))
