import jax
import jax.numpy as jnp
import numpy as np

from diffreward import measures
from diffreward.diffusion import cosine
from diffreward.reward import metrics
from tests.reward.oracle import BASE, EXPERT, exact_pair, exact_reward

SCHEDULE = cosine(20)
PAIR = exact_pair(BASE, EXPERT, SCHEDULE)


def test_fvu_of_the_exact_and_of_no_reward(key):
    x = jnp.array([0.2, -1.0])
    exact = exact_reward(BASE, EXPERT, SCHEDULE)
    for rho, expected in ((exact, 0.0), (lambda x, t: jnp.zeros(()), 1.0)):
        residual, signal = metrics.variance_by_level(rho, PAIR, key, x)
        np.testing.assert_allclose(residual / signal, expected, atol=1e-4)
    # Half the reward leaves a quarter of the variance.
    half = lambda x, t: 0.5 * exact(x, t)
    residual, signal = metrics.variance_by_level(half, PAIR, key, x)
    np.testing.assert_allclose(residual / signal, 0.25, atol=1e-3)


def test_a_shrunk_reward_is_pulled_and_one_of_undirected_errors_is_not(key):
    x = jnp.array([0.2, -1.0])
    exact = exact_reward(BASE, EXPERT, SCHEDULE)
    half = metrics.gradient_fit(lambda x, t: 0.5 * exact(x, t), PAIR, key, x)
    np.testing.assert_allclose([half.unexplained, half.pull], [0.25, 0.5], atol=1e-3)
    beyond = metrics.gradient_fit(lambda x, t: 1.5 * exact(x, t), PAIR, key, x)
    np.testing.assert_allclose([beyond.unexplained, beyond.pull], [0.25, -0.5], atol=1e-3)

    def across(x, t):
        """An error at right angles to the difference at the one state asked."""
        gradient = jax.lax.stop_gradient(jax.grad(exact)(x, t))
        return exact(x, t) + jnp.array([-gradient[1], gradient[0]]) @ x

    aside = metrics.gradient_fit(across, PAIR, key, x)
    np.testing.assert_allclose([aside.unexplained, aside.pull], [1.0, 0.0], atol=1e-3)


def test_masked_and_pinned_entries_do_not_enter_the_fvu(key):
    # A reward that is right for entry 0 only, up to a wrong gradient in entry 1.
    exact = exact_reward(BASE, EXPERT, SCHEDULE)
    wrong = lambda x, t: exact(x, t) + 7.0 * x[1]
    x = jnp.array([0.2, -1.0])
    for kwargs in (
        {"mask": jnp.array([True, False])},
        {"pinned": jnp.array([False, True])},
    ):
        residual, signal = metrics.variance_by_level(wrong, PAIR, key, x, **kwargs)
        np.testing.assert_allclose(residual / signal, 0.0, atol=1e-3)


def test_noised_reward_averages_over_the_noise(key):
    rho = lambda x, t: jnp.sum(x**2)
    x = jnp.array([1.0, -2.0])
    got = metrics.noised_reward(rho, PAIR, key, x, num_noises=4000)
    expected = SCHEDULE.alpha_bar * 5 + 2 * (1 - SCHEDULE.alpha_bar)
    np.testing.assert_allclose(got, expected, atol=0.2)
    pinned = jnp.array([True, True])
    held = metrics.noised_reward(rho, PAIR, key, x, pinned=pinned)
    np.testing.assert_allclose(held, 5.0)


def test_auroc_is_what_a_threshold_would_get(key):
    """Exact rewards separate samples of the two laws as well as their densities do."""
    rho = exact_reward(BASE, EXPERT, SCHEDULE)
    from diffreward.data import laws

    draw = lambda law, k: jax.vmap(lambda k: laws.sample(law, k))(jax.random.split(k, 500))
    value = jax.vmap(lambda x: rho(x, jnp.int32(0)))
    b, e = (np.asarray(value(draw(law, key))) for law in (BASE, EXPERT))
    assert measures.mann_whitney(e, b) > 0.95
