"""Pairs of exact models with a known reward."""

import jax.numpy as jnp

from diffreward.data import laws
from diffreward.diffusion import Schedule
from diffreward.reward import Pair


def eps_fn(law: laws.Mixture, schedule: Schedule):
    return lambda x_t, t: laws.eps(law, x_t, schedule.alpha_bar[t])


def exact_pair(base: laws.Mixture, expert: laws.Mixture, schedule: Schedule) -> Pair:
    return Pair(eps_fn(base, schedule), eps_fn(expert, schedule), schedule)


def exact_reward(base: laws.Mixture, expert: laws.Mixture, schedule: Schedule):
    def rho(x_t, t):
        ab = schedule.alpha_bar[t]
        return laws.log_density(expert, x_t, ab) - laws.log_density(base, x_t, ab)

    return rho


# Asymmetric on purpose: a sign error must show.
BASE = laws.gaussian(jnp.array([1.0, -2.0]), jnp.array([[0.8, 0.3], [0.3, 0.5]]))
EXPERT = laws.gaussian(jnp.array([-1.5, 0.5]), jnp.array([[0.4, -0.1], [-0.1, 0.9]]))
UNIT_BASE = laws.gaussian(jnp.array([1.0, -2.0]), jnp.eye(2))
UNIT_EXPERT = laws.gaussian(jnp.array([-1.5, 0.5]), jnp.eye(2))
MIXTURE = laws.mixture(
    jnp.array([0.3, 0.7]),
    jnp.array([[1.0, 1.0], [-1.0, 0.0]]),
    jnp.stack([0.2 * jnp.eye(2), jnp.diag(jnp.array([0.1, 0.4]))]),
)
