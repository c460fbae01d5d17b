"""No chain that stops before noise is started from noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward import steer
from diffreward.data import laws
from diffreward.diffusion import (
    DiffusionModel,
    cosine,
    discrete,
    draw_noise,
    linear_betas,
    paired_chain,
    q_sample,
    sample,
)
from diffreward.reward import make_pair

SHORT = linear_betas(50)
LAW = laws.gaussian(jnp.array([3.0, -2.0]), 0.25 * jnp.eye(2))
KEY = jax.random.key(0)


def eps_fn(x_t, t):
    return laws.eps(LAW, x_t, SHORT.alpha_bar[t])


def rho(x_t, t):
    return jnp.sum(x_t)


STARTS = {
    "draw_noise": lambda: draw_noise(SHORT, KEY, (2,)),
    "sample": lambda: sample(eps_fn, SHORT, KEY, (2,)),
    "sample, compiled": lambda: jax.jit(lambda k: sample(eps_fn, SHORT, k, (2,)))(KEY),
    "ddim": lambda: sample(eps_fn, SHORT, KEY, (2,), method="ddim", num_evaluations=5),
    "paired_chain": lambda: paired_chain(
        eps_fn, eps_fn, SHORT, KEY, (2,), follow_expert=False, num_evaluations=5
    ),
    "chain_kl": lambda: steer.chain_kl(eps_fn, eps_fn, SHORT, KEY, (2,)),
    "smc_sample": lambda: steer.smc_sample(eps_fn, rho, SHORT, KEY, (2,), 4),
    "reward_through_chain": lambda: steer.reward_through_chain(
        eps_fn, eps_fn, jnp.sum, SHORT, KEY, (2,), last_steps=2
    ),
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_no_chain_starts_where_samples_are_still_seen(start):
    with pytest.raises(
        ValueError, match="last level 49 has a signal-to-noise ratio of 1.5"
    ):
        start()


def test_a_noised_sample_is_a_start():
    """From x_T of the law itself the chain gives the law; from N(0, I) it would not."""
    keys = jax.random.split(KEY, 2000)

    def draw(key):
        data_key, noise_key, chain_key = jax.random.split(key, 3)
        x_0 = laws.sample(LAW, data_key)
        x_T = q_sample(SHORT, x_0, jnp.int32(49), jax.random.normal(noise_key, (2,)))
        return sample(eps_fn, SHORT, chain_key, (2,), x_T=x_T)

    x = np.asarray(jax.jit(jax.vmap(draw))(keys))
    np.testing.assert_allclose(x.mean(0), [3.0, -2.0], atol=0.05)
    np.testing.assert_allclose(x.std(0), 0.5, atol=0.03)


def test_a_pair_of_such_chains_says_what_is_left_out():
    one = DiffusionModel(eps_fn, discrete(SHORT))
    with pytest.warns(UserWarning, match=r"stops before noise.* 1\.5: .* in no log ratio"):
        make_pair(one, one)
    # At levels that go on to noise it is refused as ever: the models do not know them.
    with pytest.raises(ValueError, match="covers"):
        make_pair(one, one, cosine(8))
