"""Next latents: standards, targets and time, against one step of each model by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward import reward as r
from diffreward.diffusion import cosine, ddim_step, paired_chain
from tests.reward.oracle import BASE, EXPERT, exact_pair

SCHEDULE = cosine(12)
PAIR = exact_pair(BASE, EXPERT, SCHEDULE)
LEVELS = 5


@pytest.fixture(scope="module")
def chains():
    """Seven chains of the base, then four of the expert, and both next latents."""
    follows = np.arange(11) >= 7

    def one(key, follow):
        chain = paired_chain(
            PAIR.base,
            PAIR.expert,
            SCHEDULE,
            key,
            (2,),
            follow_expert=follow,
            num_evaluations=LEVELS,
        )
        after = jnp.append(chain.t[1:], -1)
        step = lambda model: jax.vmap(
            lambda x, t, t_next: ddim_step(model, SCHEDULE, key, x, t, t_next)
        )(chain.x_t, chain.t, after)
        return chain, step(PAIR.base), step(PAIR.expert)

    keys = jax.random.split(jax.random.key(3), 11)
    chain, z_base, z_expert = jax.device_get(jax.vmap(one)(keys, jnp.asarray(follows)))
    rows = r.RecordedChains(chain.x_t, chain.base, chain.expert - chain.base, follows)
    return chain.t[0], rows, z_base, z_expert


def test_standards_are_the_moments_of_the_next_latents(chains):
    t, rows, z_base, z_expert = chains
    found = r.fit_standards(SCHEDULE, t, [rows])
    means, variances, counts = [], [], []
    for chosen in (slice(0, 7), slice(7, None)):
        both = np.concatenate([z_base[chosen], z_expert[chosen]])
        means.append(both.mean(0))
        variances.append(both.var(0))
        counts.append(len(both))
    np.testing.assert_allclose(found.mean[0], 0)
    np.testing.assert_allclose(found.deviation[0], 1)
    mean, variance = (np.average(x, 0, counts) for x in (means, variances))
    np.testing.assert_allclose(found.mean[1:], mean, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.deviation[1:], np.sqrt(variance), rtol=1e-3)
    # The means of the two models are apart, and that is no spread of either.
    pooled = np.concatenate([z_base, z_expert]).std(0)
    assert np.all(np.asarray(found.deviation[-1]) < 0.99 * pooled[-1])


def test_chains_are_read_piece_by_piece(chains):
    t, rows, *_ = chains
    whole = r.fit_standards(SCHEDULE, t, [rows])
    pieces = [r.RecordedChains(*(a[i : i + 3] for a in rows)) for i in range(0, 11, 3)]
    for a, b in zip(whole, r.fit_standards(SCHEDULE, t, iter(pieces)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_targets_are_differences_of_standardised_next_latents(chains):
    t, rows, z_base, z_expert = chains
    s = r.fit_standards(SCHEDULE, t, [rows])
    x_t, _, difference, _ = rows
    for j in range(LEVELS):
        part = r.align_latents(s, *map(jnp.asarray, (x_t[8, j], t[j], difference[8, j])))
        standard = lambda z, j=j: (z[8, j] - s.mean[j + 1]) / s.deviation[j + 1]
        expected = standard(z_expert) - standard(z_base)
        np.testing.assert_allclose(part.target, expected, rtol=2e-3, atol=2e-4)
        before = (x_t[8, j] - s.mean[j]) / s.deviation[j]
        np.testing.assert_allclose(part.point, before, rtol=1e-5)
        assert part.weight == 1


def test_time_of_the_network_counts_the_steps_that_are_left(chains):
    t, rows, *_ = chains
    s = r.fit_standards(SCHEDULE, t, [rows])
    rho = r.latent_reward(s, lambda x, left: left.astype(float) * 100 + x.sum())
    x = jnp.array([0.5, -2.0])
    for j in range(LEVELS):
        standard = ((x - s.mean[j]) / s.deviation[j]).sum()
        expected = 100 * (LEVELS - 1 - j) + standard
        np.testing.assert_allclose(rho(x, jnp.asarray(t[j])), expected, rtol=1e-5)
        assert r.steps_left(s, jnp.asarray(t[j])) == LEVELS - 1 - j
    assert (
        r.steps_left(s, jnp.asarray(t[0] - 1)) == LEVELS - 1
    )  # the nearest that was visited


def test_standards_need_chains(chains):
    with pytest.raises(ValueError, match="at least one chain"):
        r.fit_standards(SCHEDULE, chains[0], [])
