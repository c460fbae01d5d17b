import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from diffreward.data import laws, pairs
from diffreward.data.episodes import Episodes

ONE = jnp.ones(())


def density(law: laws.Mixture, x: np.ndarray) -> np.ndarray:
    """SciPy's density of a clean mixture."""
    parts = zip(np.exp(law.log_weights), law.means, law.covariances, strict=True)
    return sum(w * multivariate_normal(m, c).pdf(x) for w, m, c in parts)


@pytest.mark.parametrize("name", pairs.TILTS)
def test_tilted_law_is_the_base_times_exp_of_the_reward(name):
    pair, reward = pairs.known_pairs()[name], pairs.known_tilt(name)
    x = np.random.default_rng(0).normal(size=(50, 2)) * 1.5
    ratio = np.log(density(pair.expert, x) / density(pair.base, x))
    wanted = np.array([reward(jnp.asarray(row, jnp.float32)) for row in x])
    np.testing.assert_allclose(np.ptp(ratio - wanted), 0, atol=2e-3)
    assert np.ptp(ratio + wanted) > 1  # the other sign is not it


def test_temperature_divides_the_reward():
    base, reward = pairs.known_pairs()["mixtures"].base, pairs.known_tilt("tilted_linear")
    hot = pairs.tilt(base, reward, 4.0)
    x = np.random.default_rng(1).normal(size=(20, 2))
    ratio = np.log(density(hot, x) / density(base, x))
    wanted = x @ np.asarray(reward.slope) / 4
    np.testing.assert_allclose(np.ptp(ratio - wanted), 0, atol=2e-3)


def test_tilts_without_a_law_are_refused():
    base = pairs.known_pairs()["mixtures"].base
    explosive = pairs.Tilt(jnp.zeros(2), -10 * jnp.eye(2), jnp.zeros(2))
    with pytest.raises(ValueError, match="no finite mass; raise beta"):
        pairs.tilt(base, explosive, 1.0)
    with pytest.raises(ValueError, match="beta must be positive"):
        pairs.tilt(base, pairs.known_tilt("tilted_linear"), 0.0)
    with pytest.raises(ValueError, match="tilted_linear, tilted_quadratic"):
        pairs.known_tilt("mixtures")


@pytest.mark.parametrize("name", pairs.known_pairs())
def test_reward_is_the_log_ratio_of_diffused_densities(name):
    """Against SciPy at a noise level: every component blurred by hand."""
    pair, alpha_bar = pairs.known_pairs()[name], 0.6
    blur = lambda law: laws.mixture(
        jnp.exp(law.log_weights),
        jnp.sqrt(alpha_bar) * law.means,
        alpha_bar * law.covariances + (1 - alpha_bar) * jnp.eye(law.means.shape[1])[None],
    )
    x = np.random.default_rng(2).normal(size=(5, *pair.shape)).astype(np.float32)
    got = [pair.reward(jnp.asarray(row), jnp.float32(alpha_bar)) for row in x]
    flat = x.reshape(5, -1)
    wanted = np.log(density(blur(pair.expert), flat) / density(blur(pair.base), flat))
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-3)


def test_samples_are_of_the_law_asked_for(key):
    pair = pairs.known_pairs()["gaussians"]
    for role in ("base", "expert"):
        law = getattr(pair, role)
        x = pair.sample(role, key, 4000)
        np.testing.assert_allclose(x.mean(0), law.means[0], atol=0.06)
        np.testing.assert_allclose(np.cov(x.T), law.covariances[0], atol=0.06)
    with pytest.raises(ValueError, match="unknown role 'novice'"):
        pair.sample("novice", key, 1)


def test_resampled_rows_have_the_tilted_mean():
    """A unit Gaussian tilted by exp(x / beta) is one of mean 1 / beta."""
    x = np.random.default_rng(3).normal(size=40_000)
    rows, effective = pairs.tilt_rows(x, 2.0, 20_000, seed=0)
    np.testing.assert_allclose(x[rows].mean(), 0.5, atol=0.03)
    np.testing.assert_allclose(x[rows].std(), 1.0, atol=0.03)
    # E[w]^2 / E[w^2] = exp(-1 / beta^2)
    np.testing.assert_allclose(effective / len(x), np.exp(-0.25), rtol=0.05)


def test_resampling_refuses_to_copy_a_handful_of_rows():
    x = np.random.default_rng(3).normal(size=1000)
    with pytest.raises(ValueError, match="rows carry the weight at beta=0.01; raise beta"):
        pairs.tilt_rows(x, 0.01, 10, seed=0)
    with pytest.raises(ValueError, match="beta must be positive"):
        pairs.tilt_rows(x, -1.0, 10, seed=0)


def test_windows_stay_inside_their_episode():
    observations = np.stack([np.arange(12.0), np.repeat([0.0, 1.0], [5, 7])], 1)
    ends = np.isin(np.arange(12), [4, 11])
    episodes = Episodes.from_arrays(observations, np.zeros((12, 1)), timeouts=ends)
    windows = pairs.episode_windows(episodes, 3, slice(0, 2))
    assert windows.shape == (3 + 5, 3, 2)
    assert (windows[:, :, 1] == windows[:, :1, 1]).all()
    assert (np.diff(windows[:, :, 0]) == 1).all()
    assert len(pairs.episode_windows(episodes, 3, slice(0, 2), spacing=2)) == 2 + 3
    with pytest.raises(ValueError, match="no episode has 8 steps"):
        pairs.episode_windows(episodes, 8, slice(0, 2))


def test_the_reward_accepts_trajectories(key):
    pair = pairs.known_pairs()["trajectories"]
    x = pair.sample("base", key, 2)
    assert x.shape == (2, 3, 2)
    assert jax.grad(pair.reward)(x[0], ONE).shape == (3, 2)
