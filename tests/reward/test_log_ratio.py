import jax
import jax.numpy as jnp
import numpy as np

from diffreward.data import laws
from diffreward.diffusion import cosine
from diffreward.reward import elbo_weights, log_ratio
from tests.reward.oracle import UNIT_BASE, UNIT_EXPERT, exact_pair


def test_estimates_the_log_density_ratio_in_nats(key):
    """Value and slope, for exact models: a wrong weight or sign shows in both."""
    schedule = cosine(200)
    pair = exact_pair(UNIT_BASE, UNIT_EXPERT, schedule)
    x_key, noise_key = jax.random.split(key)
    x_0 = 1.5 * jax.random.normal(x_key, (64, 2))
    estimate = lambda x, k: log_ratio(pair, k, x, num_noises=30).sum()
    got = np.asarray(jax.jit(jax.vmap(estimate))(x_0, jax.random.split(noise_key, 64)))
    clean = jnp.float32(1.0)
    true = [
        float(laws.log_density(UNIT_EXPERT, x, clean))
        - float(laws.log_density(UNIT_BASE, x, clean))
        for x in x_0
    ]
    slope, offset = np.polyfit(true, got, 1)
    assert abs(slope - 1) < 0.03
    assert abs(offset) < 0.3
    assert np.corrcoef(true, got)[0, 1] > 0.995


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
