"""Reward gradients through the chain, on a Gaussian base whose mean is trained."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffreward import train
from diffreward.data import laws
from diffreward.diffusion import Condition, cosine, sample
from diffreward.steer.finetune import make_finetune_loss, reward_through_chain
from tests.reward.oracle import BASE

SCHEDULE = cosine(10)
DIRECTION = jnp.array([0.6, -0.8])


def model(shift):
    """The exact denoiser of the base moved by ``shift``."""

    def eps_fn(x_t, t):
        law = BASE._replace(means=BASE.means + shift[None])
        return laws.eps(law, x_t, SCHEDULE.alpha_bar[t])

    return eps_fn


def linear(x_0):
    return jnp.dot(DIRECTION, x_0)


def bent(x_0):
    return jnp.sum(jnp.sin(x_0)) + x_0[0] * x_0[1]


ZERO = jnp.zeros(2)


def reward(shift, key, value=bent, **options):
    options = {"last_steps": 10, **options}
    return reward_through_chain(
        model(shift), model(ZERO), value, SCHEDULE, key, (2,), **options
    )


def test_the_sample_is_the_samplers_own(key):
    expected = sample(model(ZERO), SCHEDULE, key, (2,))
    for k in (1, 4, 10):
        value, kl, x_0 = reward(ZERO, key, last_steps=k)
        np.testing.assert_allclose(x_0, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(value, bent(expected), rtol=1e-5)
        assert float(kl) == 0


def test_the_gradient_of_all_steps_is_the_finite_difference(key):
    shift, step = jnp.array([0.3, -0.2]), 1e-2
    value = jax.jit(lambda s: reward(s, key)[0])
    gradient = jax.jit(jax.grad(lambda s: reward(s, key)[0]))(shift)
    for i in range(2):
        e = step * jnp.eye(2)[i]
        slope = (value(shift + e) - value(shift - e)) / (2 * step)
        np.testing.assert_allclose(gradient[i], slope, rtol=1e-2)


def test_the_last_step_alone_is_the_finite_difference_through_it(key):
    """Everything above level 0 runs at the unmoved parameters."""
    shift, step = jnp.array([0.3, -0.2]), 1e-2
    gradient = jax.jit(jax.grad(lambda s: reward(s, key, last_steps=1)[0]))(shift)

    def split(last):
        """The chain at ``shift``, its level 0 at ``last``."""

        def eps_fn(x_t, t):
            return jnp.where(t == 0, model(last)(x_t, t), model(shift)(x_t, t))

        return bent(sample(eps_fn, SCHEDULE, key, (2,)))

    value = jax.jit(split)
    for i in range(2):
        e = step * jnp.eye(2)[i]
        slope = (value(shift + e) - value(shift - e)) / (2 * step)
        np.testing.assert_allclose(gradient[i], slope, rtol=1e-2)
    full = jax.jit(jax.grad(lambda s: reward(s, key)[0]))(shift)
    assert np.abs(np.asarray(full - gradient)).max() > 0.1


@pytest.mark.parametrize("last_steps", [1, 4, 10])
def test_remat_changes_nothing(key, last_steps):
    def total(s, remat):
        value, kl, _ = reward(s, key, last_steps=last_steps, remat=remat)
        return value - 0.1 * kl

    shift = jnp.array([0.3, -0.2])
    with_it, without = (
        jax.jit(jax.value_and_grad(lambda s, r=r: total(s, r)))(shift)
        for r in (True, False)
    )
    for a, b in zip(with_it, without, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_kl_is_the_sum_over_gaussian_steps(key):
    """By the chain of means written out; equal variances leave the means' distance."""
    shift = jnp.array([0.3, -0.2])
    kl = float(reward(shift, key, last_steps=4)[1])
    s = {k: np.asarray(v, np.float64) for k, v in SCHEDULE._asdict().items()}
    cov = np.asarray(BASE.covariances[0], np.float64)
    expected = 0.0
    for t in range(4):
        # x0hat(shift) - x0hat(0) = (I - gain sqrt(ab)) shift, whatever x_t is.
        ab = s["alpha_bar"][t]
        gain = np.sqrt(ab) * cov @ np.linalg.inv(ab * cov + (1 - ab) * np.eye(2))
        apart = s["posterior_x_0"][t] * (np.eye(2) - np.sqrt(ab) * gain) @ np.array(shift)
        expected += apart @ apart / (2 * s["posterior_variance"][max(t, 1)])
    np.testing.assert_allclose(kl, expected, rtol=1e-2)


def test_pinned_entries_are_held_and_free_of_kl(key):
    condition = Condition(jnp.array([True, False]), jnp.array([0.4, 0.0]))
    _, kl, x_0 = reward(jnp.array([5.0, 0.0]), key, condition=condition)
    assert float(x_0[0]) == pytest.approx(0.4)
    everything = Condition(jnp.ones(2, bool), jnp.array([0.4, 0.1]))
    assert float(reward(jnp.array([5.0, 0.0]), key, condition=everything)[1]) == 0
    assert float(kl) > 0


def task(kl_weight, last_steps=10):
    loss = make_finetune_loss(
        model,
        lambda direction: lambda x: jnp.dot(direction, x),
        SCHEDULE,
        (2,),
        last_steps=last_steps,
        kl_weight=kl_weight,
    )
    draw = lambda data, key: {"x_0": jnp.zeros((32, 2))}
    return train.Task(init=lambda key: ZERO, loss=loss, draw=draw)


@pytest.mark.parametrize("last_steps", [2, 10])
def test_training_moves_the_mean_along_the_reward(tmp_path, last_steps):
    def fitted(kl_weight):
        with jax.numpy_dtype_promotion("standard"):
            state = train.optimise(
                task(kl_weight, last_steps),
                optax.sgd(0.1),
                data=jnp.zeros(1),
                frozen={"base": ZERO, "reward": DIRECTION},
                steps=40,
                seed=0,
                workdir=tmp_path / f"kl{kl_weight}",
                name="finetune",
                loop=train.Loop(
                    steps_per_dispatch=20, log_every=20, checkpoint_every=40, progress=False
                ),
            )
        return np.asarray(state.params)

    free, held = fitted(0.0), fitted(0.5)
    assert free @ np.asarray(DIRECTION) > 0.5
    assert 0 < held @ np.asarray(DIRECTION) < 0.7 * free @ np.asarray(DIRECTION)


@pytest.mark.parametrize("last_steps", [0, 11])
def test_steps_out_of_range_are_named(key, last_steps):
    with pytest.raises(
        ValueError, match=rf"last_steps must be in \[1, 10\], got {last_steps}"
    ):
        reward(ZERO, key, last_steps=last_steps)
