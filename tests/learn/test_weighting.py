"""Weights of noised states in the alignment loss, against formulas by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.learn import WEIGHTINGS, alignment, noise
from diffreward.reward import SCORE, alignment_loss
from tests.learn.toy import BASE, EXPERT, MODEL, SCHEDULE, SHAPE, normals

PAIR = MODEL.pair(BASE, EXPERT)
WHERE = normals(3, *SHAPE)


@pytest.fixture(autouse=True)
def _numpy_promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def rho(x, t):
    return jnp.vdot(WHERE, x) * (1 + t)


def test_the_chain_weighs_an_error_of_x_0_by_half_the_drop_of_the_snr():
    """KL of two Gaussian steps of one variance: squared distance of means over twice it."""
    t = jnp.arange(SCHEDULE.num_steps)
    factor = np.asarray(WEIGHTINGS["chain_kl"](SCHEDULE, t, jnp.ones(t.shape)), float)
    ab = np.asarray(SCHEDULE.alpha_bar, float)
    before = np.concatenate([[np.nan], ab[:-1]])
    beta = 1 - ab / before
    variance = beta * (1 - before) / (1 - ab)
    of_x_0 = np.sqrt(before) * beta / (1 - ab)  # of the step's mean
    kl = of_x_0**2 / (2 * variance)
    plain = 1 / (1 - ab)  # the weight of v, of the same error
    wanted = np.maximum(kl / plain, 0.1)
    np.testing.assert_allclose(factor[1:], wanted[1:], rtol=2e-3)
    assert (wanted[1:] > 0.1).any()
    np.testing.assert_allclose(factor[0], ab[0] / 2, rtol=1e-4)


def test_a_relative_loss_is_each_states_error_over_its_own_difference(key):
    x_0 = normals(5, 6, *SHAPE)
    noised = noise(SCHEDULE, key, x_0)
    found, metrics = alignment(rho, PAIR, SCORE, noised, None, WEIGHTINGS["relative"])
    losses, signals = [], []
    for x_t, t in zip(noised.x_t, noised.t, strict=True):
        part = SCORE.align(PAIR, x_t, t)
        loss, sums = alignment_loss(rho, x_t, t, part.target, weight=part.weight)
        losses.append(float(loss))
        signals.append(float(sums["signal"]))
    signals = np.array(signals)
    factor = signals.mean() / (signals + 0.1 * signals.mean())
    assert np.ptp(factor) > 0.5
    np.testing.assert_allclose(found, np.mean(factor * losses), rtol=1e-4)
    _, plain = alignment(rho, PAIR, SCORE, noised)
    assert metrics["fvu"] == plain["fvu"]  # is measured in the objective's own weight
    assert alignment(rho, PAIR, SCORE, noised)[0] == pytest.approx(
        np.mean(losses), rel=1e-5
    )
