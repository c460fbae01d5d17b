import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.diffusion import Remembering, cosine, paired_chain, sample
from tests.reward.oracle import BASE, EXPERT, exact_pair

SCHEDULE = cosine(20)
PAIR = exact_pair(BASE, EXPERT, SCHEDULE)


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("evaluations", [20, 7, 1])
def test_chain_is_ddim_of_the_model_that_is_followed(key, follow, evaluations):
    chain = paired_chain(
        PAIR.base,
        PAIR.expert,
        SCHEDULE,
        key,
        (2,),
        follow_expert=follow,
        num_evaluations=evaluations,
    )
    model = PAIR.expert if follow else PAIR.base
    # `sample` keeps a key for the noise of its steps; the chain needs none.
    start = jax.random.normal(key, (2,))
    x = np.asarray(start, np.float64)
    ab = np.asarray(SCHEDULE.alpha_bar, np.float64)
    levels = np.asarray(chain.t)
    assert levels[0] == 19
    assert np.all(np.diff(levels) < 0)
    for i, t in enumerate(levels):
        np.testing.assert_allclose(chain.x_t[i], x, rtol=2e-4, atol=2e-4)
        eps = np.asarray(model(chain.x_t[i], jnp.int32(t)), np.float64)
        x_0 = (x - np.sqrt(1 - ab[t]) * eps) / np.sqrt(ab[t])
        after = ab[levels[i + 1]] if i + 1 < len(levels) else 1.0
        x = np.sqrt(after) * x_0 + np.sqrt(1 - after) * eps
    np.testing.assert_allclose(chain.x_0, x, rtol=1e-3, atol=1e-3)


def test_chain_agrees_with_the_sampler(key):
    start, _ = jax.random.split(key)
    whole = sample(PAIR.base, SCHEDULE, key, (2,), method="ddim")
    chain = paired_chain(
        PAIR.base,
        PAIR.expert,
        SCHEDULE,
        start,
        (2,),
        follow_expert=False,
        num_evaluations=20,
    )
    np.testing.assert_allclose(chain.x_0, whole, rtol=1e-4, atol=1e-4)


def test_both_models_are_asked_at_the_same_state(key):
    chain = paired_chain(
        PAIR.base,
        PAIR.expert,
        SCHEDULE,
        key,
        (2,),
        follow_expert=True,
        num_evaluations=5,
    )
    for name in ("base", "expert"):
        model = getattr(PAIR, name)
        expected = jax.vmap(model)(chain.x_t, chain.t)
        np.testing.assert_allclose(getattr(chain, name), expected, rtol=1e-4, atol=1e-5)


def test_memory_runs_along_the_chain(key):
    counting = Remembering(lambda x, t, n: (x * 0 + n, n + 1), jnp.zeros(()))
    chain = paired_chain(
        PAIR.base,
        counting,
        SCHEDULE,
        key,
        (2,),
        follow_expert=False,
        num_evaluations=6,
    )
    np.testing.assert_array_equal(chain.expert[:, 0], np.arange(6))
