"""Sources with known answers, made once."""

import jax
import jax.numpy as jnp
import pytest

from diffreward.data import pairs
from diffreward.diffusion import cosine
from diffreward.extract import accuracy, compare, exact_source

SCHEDULE = cosine(24)


@pytest.fixture(autouse=True)
def _optax_promotion():
    """Adam's bias correction raises a Python float to an int32 power."""
    with jax.numpy_dtype_promotion("standard"):
        yield


class Known:
    """A closed-form pair, what extractors may learn from, and how they are judged."""

    def __init__(self, name):
        self.pair = pairs.known_pairs()[name]
        key = jax.random.key(11)
        self.source = exact_source(self.pair, SCHEDULE, key, 2048)
        draw = lambda role, i: self.pair.sample(role, jax.random.fold_in(key, i), 8)
        self.x_0 = jnp.concatenate([draw("base", 1), draw("expert", 2)])

    def true_fn(self, x_t, t):
        return self.pair.reward(x_t, SCHEDULE.alpha_bar[t])

    def judge(self, reward_fn, true_fn=None, levels=slice(None)):
        """Agreement with the truth, and with that of base and expert swapped."""
        truth = true_fn or self.true_fn
        found = compare(reward_fn, truth, SCHEDULE, jax.random.key(12), self.x_0)
        swapped = found._replace(score=-found.score, truth=-found.truth)
        return accuracy(found, levels), accuracy(swapped, levels)


@pytest.fixture(scope="session")
def known():
    """A function of a pair's name; every pair is made once."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = Known(name)
        return made[name]

    return get
