"""End to end: train a reward on exact models and compare with the closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward import train
from diffreward.data import laws
from diffreward.diffusion import cosine, draw_levels, q_sample, sample
from diffreward.networks import InnerProductReward, TrajectoryMLP
from diffreward.reward import align_scores, alignment_loss, metrics, score_scale
from diffreward.steer import guide
from tests.reward.oracle import (
    BASE,
    EXPERT,
    MIXTURE,
    eps_fn,
    exact_pair,
)

SCHEDULE = cosine(20)
BATCH = 128
NET = InnerProductReward(TrajectoryMLP(width=64, depth=2))
TRAJECTORIES = (
    laws.linear_gaussian_trajectories(0.9 * jnp.eye(2), jnp.zeros(2), 0.5, 3),
    laws.linear_gaussian_trajectories(
        jnp.array([[0.8, 0.3], [-0.3, 0.8]]), jnp.array([0.4, -0.2]), 0.4, 3
    ),
)


@pytest.fixture(autouse=True)
def _optax_promotion():
    """Adam's bias correction raises a Python float to an int32 power."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def reward_fn(params, shape):
    def rho(x, t):
        # The network sees (horizon, dim); the laws are flat.
        value = NET.apply(params, x.reshape(shape), t)
        return score_scale(SCHEDULE, t) * value

    return rho


def extract(base, expert, shape, folder, steps):
    """The project's own loop and loss, x_0 from both laws."""
    pair = exact_pair(base, expert, SCHEDULE)
    keys = jax.random.split(jax.random.key(1), 8192)
    bank = jnp.concatenate(
        [jax.vmap(lambda k, law=law: laws.sample(law, k))(keys) for law in (base, expert)]
    )

    def loss(params, frozen, key, x_0):
        level_key, noise_key = jax.random.split(key)
        t = draw_levels(level_key, len(x_0), SCHEDULE.num_steps)
        eps = jax.random.normal(noise_key, x_0.shape)

        def one(x, t, n):
            x_t = q_sample(SCHEDULE, x, t, n)
            part = align_scores(pair, x_t, t)
            rho = reward_fn(params, shape)
            return alignment_loss(rho, x_t, t, part.target, weight=part.weight)[0]

        return jax.vmap(one)(x_0, t, eps).mean(), {}

    def draw(data, key):
        picks = jax.random.randint(key, (BATCH,), 0, data.shape[0])
        return data[picks]

    task = train.Task(
        init=lambda key: NET.init(key, jnp.zeros(shape), jnp.int32(0)),
        loss=loss,
        draw=draw,
    )
    state = train.optimise(
        task,
        train.make_optimiser(3e-3, steps=steps, schedule="cosine", clip_norm=1.0),
        data=bank,
        steps=steps,
        seed=0,
        workdir=folder,
        name="oracle",
        numerics=train.Numerics(ema_decay=0.99),
        loop=train.Loop(steps_per_dispatch=steps, checkpoint_every=steps, progress=False),
    )
    params = jax.device_get(state.ema_params)
    return pair, reward_fn(params, shape)


def relative_error(pair, rho, law, key, pinned=None):
    """sqrt of the fraction of variance unexplained on fresh samples of the law."""
    keys = jax.random.split(key, 256)
    measure = lambda k: metrics.variance_by_level(
        rho, pair, k, laws.sample(law, jax.random.fold_in(k, 7))
    )
    residual, signal = jax.jit(jax.vmap(measure))(keys)
    return float(jnp.sqrt(residual.sum() / signal.sum()))


MIXED = (laws.gaussian(jnp.zeros(2), jnp.eye(2)), MIXTURE)
CASES = {
    # laws of base and expert, sample shape, steps, largest relative error
    "gaussian": (BASE, EXPERT, (1, 2), 800, 0.03),
    "trajectory": (*TRAJECTORIES, (3, 2), 2000, 0.03),
    "mixture": (*MIXED, (1, 2), 800, 0.1),
}


@pytest.mark.parametrize("case", CASES)
def test_trained_reward(key, tmp_path, case):
    base, expert, shape, steps, tolerance = CASES[case]
    pair, rho = extract(base, expert, shape, tmp_path, steps)
    for law in (base, expert):
        assert relative_error(pair, rho, law, key) < tolerance
    # An oracle that a wrong answer would pass is none: the swapped pair fails it.
    swapped = pair._replace(base=pair.expert, expert=pair.base)
    assert relative_error(swapped, rho, base, key) > 1.9
    if case == "gaussian":
        check_steering(rho, key)


def check_steering(rho, key):
    """Steered by the learned reward at scale 1, the base samples like the expert."""
    draw = lambda eps: jax.jit(jax.vmap(lambda k: sample(eps, SCHEDULE, k, (2,))))
    keys = jax.random.split(key, 2000)
    base, expert = eps_fn(BASE, SCHEDULE), eps_fn(EXPERT, SCHEDULE)
    steered = np.asarray(draw(guide(base, rho, SCHEDULE, 1.0))(keys))
    wanted = np.asarray(draw(expert)(keys))
    np.testing.assert_allclose(steered.mean(0), wanted.mean(0), atol=0.05)
    np.testing.assert_allclose(np.cov(steered.T), np.cov(wanted.T), atol=0.05)
