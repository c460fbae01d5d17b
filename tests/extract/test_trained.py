"""Trained extractors on closed-form pairs, and against the theory of what each learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.data import laws
from diffreward.diffusion import from_eps
from diffreward.extract import Training, distilled, fit
from diffreward.networks import EnergyDenoiser
from diffreward.reward import relative_score
from tests.extract.conftest import SCHEDULE

SETTINGS = Training(steps=300, batch_size=64, width=32, depth=1, learning_rate=5e-3)
LONGER = SETTINGS._replace(steps=800, width=64, depth=2)
# Largest error of the gradient and least rank correlation: what regresses gradients is
# near after few steps, what classifies or denoises has the values in order.
CASES = {
    ("gradient_alignment", "gaussians"): (SETTINGS, 0.06, 0.99),
    ("gradient_alignment", "trajectories"): (SETTINGS, 0.2, 0.97),
    ("discriminator", "tilted_linear"): (SETTINGS, 0.8, 0.85),
    ("energy_pair", "mixtures"): (LONGER, 0.8, 0.9),
    ("distilled_energies", "gaussians"): (SETTINGS, 0.15, 0.99),
    ("residual_alignment", "mixtures"): (SETTINGS, 0.4, 0.95),
}


@pytest.mark.parametrize(("name", "pair"), CASES)
def test_trained_rewards(known, name, pair):
    case, (settings, gradient, rank) = known(pair), CASES[name, pair]
    reward = fit(name, case.source, settings)
    right, swapped = case.judge(reward.reward_fn)
    assert right.gradient_error < gradient
    assert right.rank_correlation > rank
    assert swapped.gradient_error > max(gradient, 1.0)
    assert swapped.rank_correlation < -rank


def test_preferences_recover_the_reward_at_the_least_noise(known):
    case = known("tilted_linear")
    reward = fit("bradley_terry", case.source, SETTINGS)
    low = slice(0, 3)
    right, swapped = case.judge(reward.reward_fn, levels=low)
    assert right.gradient_error < 0.4
    assert right.rank_correlation > 0.95
    assert swapped.gradient_error > 1.5
    assert swapped.rank_correlation < -0.95


def test_regression_learns_the_mean_return_behind_x_t(known):
    """On samples of one Gaussian N(m, S), E[w . x_0 | x_t] is affine in x_t."""
    case = known("gaussians_equal_cov")
    law, slope = case.pair.base, jnp.array([1.5, -1.0])
    x_0 = case.pair.sample("base", jax.random.key(0), 4096)
    source = case.source._replace(base=x_0, expert=None, returns=x_0 @ slope)
    reward = fit("return_regression", source, SETTINGS._replace(steps=1000))
    mean, cov = law.means[0], law.covariances[0]

    def posterior(x_t, t):
        a, ab = SCHEDULE.sqrt_alpha_bar[t], SCHEDULE.alpha_bar[t]
        gain = a * cov @ jnp.linalg.inv(ab * cov + (1 - ab) * jnp.eye(2))
        return slope @ (mean + gain @ (x_t - a * mean))

    # Where x_t is of the law it was trained on.
    near = slice(0, 8)
    case_x = case.x_0
    case.x_0 = x_0[:16]
    right, swapped = case.judge(reward.reward_fn, posterior, near)
    case.x_0 = case_x
    assert right.value_error < 0.15
    assert right.gradient_error < 0.3
    assert swapped.gradient_error > 1.5


def test_a_residual_starts_at_nothing_and_a_distilled_base_at_the_base(known, monkeypatch):
    """Before any step of its own, the reward is zero; its start is the base's gradient."""
    case = known("gaussians")
    optimise, asked = distilled.optimise, []

    def first_only(name, task, settings, seed, workdir, *, data):
        asked.append(task)
        if len(asked) == 1:
            return optimise(name, task, settings, seed, workdir, data=data)
        params = task.init(jax.random.key(0))
        return jax.device_get(params)

    monkeypatch.setattr(distilled, "optimise", first_only)
    reward = fit("residual_alignment", case.source, LONGER)
    x, t = jnp.array([0.4, -0.7]), jnp.int32(7)
    assert float(reward.reward_fn(x, t)) == 0.0
    denoiser = EnergyDenoiser(reward.network.net.net)
    start = jax.tree.map(lambda p: p[0], reward.params["params"]["net"])
    found = denoiser.apply({"params": start}, x[None], t)[0]
    eps = case.source.pair.base(x, t)
    np.testing.assert_allclose(found, from_eps(SCHEDULE, "x_0", x, t, eps), atol=0.05)


def test_methods_of_energies_leave_pinned_entries_alone(known):
    """Entry 1 is shown clean at every level; a mask that forgets it learns another law."""
    case = known("gaussians")
    pinned = jnp.array([False, True])
    source = case.source._replace(pinned=pinned)
    for name in ("distilled_energies", "residual_alignment"):
        reward = fit(name, source, SETTINGS)
        x, t = jnp.array([0.4, -0.7]), jnp.int32(7)
        wanted = relative_score(source.pair, x, t)
        found = jax.grad(reward.reward_fn)(x, t)
        assert abs(found[0] - wanted[0]) < 0.25 * float(jnp.abs(wanted).max())


@pytest.mark.parametrize(
    "name",
    [
        "gradient_alignment",
        "energy_pair",
        "discriminator",
        "distilled_energies",
        "residual_alignment",
    ],
)
def test_stored_networks_are_the_reward(known, name):
    """What a card keeps gives the numbers of the function."""
    case = known("trajectories")
    reward = fit(name, case.source, SETTINGS._replace(steps=2))
    for t in (0, 20):
        args = case.x_0[0], jnp.int32(t)
        stored = reward.network.apply(reward.params, *args)
        np.testing.assert_allclose(reward.reward_fn(*args), stored, rtol=1e-6)


def test_energies_differ_by_the_models_they_came_from(known):
    """The gradient of the reward is the score difference of the two denoisers."""
    case = known("gaussians")
    reward = fit("energy_pair", case.source, SETTINGS._replace(steps=5))
    denoiser = EnergyDenoiser(reward.network.net.net)
    x, t = jnp.array([0.4, -0.7]), jnp.int32(7)
    member = lambda i: jax.tree.map(lambda p: p[i], reward.params["params"]["net"])
    base, expert = (denoiser.apply({"params": member(i)}, x[None], t) for i in (0, 1))
    ab = SCHEDULE.alpha_bar[7]
    wanted = jnp.sqrt(ab) / (1 - ab) * (expert - base)[0]
    np.testing.assert_allclose(jax.grad(reward.reward_fn)(x, t), wanted, rtol=1e-4)


def test_runs_are_repeated_and_resumed(known, tmp_path):
    source = known("gaussians").source
    settings = SETTINGS._replace(steps=3)
    x, t = jnp.array([0.4, -0.7]), jnp.int32(7)
    value = lambda **kw: float(fit("discriminator", source, settings, **kw).reward_fn(x, t))
    first = value(seed=1, workdir=tmp_path)
    assert value(seed=1, workdir=tmp_path) == first  # read back
    assert value(seed=1) == first
    assert value(seed=2) != first


def test_pinned_entries_take_no_part(known):
    """A reward trained with entry 1 pinned is never asked about its gradient."""
    case = known("gaussians")
    broken = case.source.pair._replace(
        expert=lambda x, t: case.source.pair.base(x, t).at[1].add(1e6)
    )
    source = case.source._replace(pair=broken, pinned=jnp.array([False, True]))
    reward = fit("gradient_alignment", source, SETTINGS._replace(steps=50))
    gradient = jax.grad(reward.reward_fn)(jnp.array([0.4, -0.7]), jnp.int32(7))
    assert abs(gradient[0]) < 1.0  # the free entries of the models agree


def test_samples_come_from_the_law(known):
    """Guards the fixture: labels of exact sources are those of the law."""
    case = known("gaussians")
    x = case.source.base[0]
    one = jnp.ones(())
    wanted = laws.log_density(case.pair.expert, x, one) - laws.log_density(
        case.pair.base, x, one
    )
    np.testing.assert_allclose(case.source.returns[0], wanted, rtol=1e-5)
    better = jax.vmap(lambda x: case.pair.reward(x, one))
    chosen, other = map(better, case.source.preferences)
    margin = np.asarray(chosen - other)
    # Mean of the chosen one's margin under Bradley-Terry: E |d| tanh(|d| / 2).
    np.testing.assert_allclose(
        margin.mean(), (np.abs(margin) * np.tanh(np.abs(margin) / 2)).mean(), rtol=0.05
    )
