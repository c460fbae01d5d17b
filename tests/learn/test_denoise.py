"""The denoising task against sums by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.diffusion import denoising_loss
from diffreward.learn import batch_loss, denoising_task, draw_noise
from tests.learn.toy import BASE, MODEL, PINNED, SCHEDULE, SHAPE, Affine, normals, windows


def by_hand(params, x_0, t, eps, weight):
    """Weighted squared errors of x_0 at x_t, over the free entries of every sample."""
    x_0, eps, weight = (np.asarray(x, np.float64) for x in (x_0, eps, weight))
    alpha_bar = np.asarray(SCHEDULE.alpha_bar, np.float64)[np.asarray(t)][:, None, None]
    x_t = np.sqrt(alpha_bar) * x_0 + np.sqrt(1 - alpha_bar) * eps
    x_t = np.where(PINNED, x_0, x_t)
    error = (float(params["slope"]) * x_t + np.asarray(params["shift"]) - x_0) ** 2
    free = ~np.asarray(PINNED)
    return (error * weight * free).sum((1, 2)).mean() / free.sum()


@pytest.mark.parametrize("weighted", [False, True])
def test_batch_loss_is_the_mean_of_single_losses(weighted):
    x_0, eps = normals(1, 4, *SHAPE), normals(2, 4, *SHAPE)
    t = jnp.array([0, 3, 7, 11])
    weight = jnp.square(normals(3, 4, *SHAPE)) if weighted else None
    found, metrics = batch_loss(
        Affine(), BASE, SCHEDULE, x_0, t, eps, weight=weight, pinned=PINNED
    )
    np.testing.assert_allclose(
        found, by_hand(BASE, x_0, t, eps, 1 if weight is None else weight), rtol=1e-5
    )
    np.testing.assert_allclose(metrics["mse"], by_hand(BASE, x_0, t, eps, 1), rtol=1e-5)
    predict = lambda x, t: Affine().apply(BASE, x, t)
    singles = [
        denoising_loss(
            predict,
            SCHEDULE,
            x_0[i],
            t[i],
            eps[i],
            weight=None if weight is None else weight[i],
            pinned=PINNED,
        )[0]
        for i in range(4)
    ]
    np.testing.assert_allclose(found, np.mean(singles), rtol=1e-6)


def test_weights_and_padding_count_as_they_should(key):
    """Steps after the end are left out if asked for; the divisor stays the free entries."""
    data = windows(1.0)
    weight = jnp.ones(SHAPE).at[0, 0].set(10.0)
    for masked in (False, True):
        model = MODEL._replace(weight=weight, mask_padding=masked)
        task = denoising_task(model, 64)
        batch = task.draw(data, key)
        padded = ~batch["valid"]
        assert 0 < padded[:, 1].sum() < 64
        assert not padded[:, 0].any()
        t, eps = draw_noise(SCHEDULE, key, batch["x_0"])
        counted = np.asarray(weight) * (
            np.asarray(batch["valid"])[:, :, None] | (not masked)
        )
        wanted = by_hand(BASE, batch["x_0"], t, eps, counted)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            found, _ = task.loss(BASE, None, key, batch)
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_a_task_starts_where_it_is_told_and_draws_what_it_is_given(key):
    own = lambda data, key: {"x_0": data, "valid": jnp.ones((1, 2), bool)}
    task = denoising_task(MODEL, 8, BASE, own)
    assert task.init(key) is BASE
    data = jnp.zeros((1, *SHAPE))
    assert task.draw(data, key)["x_0"] is data
    fresh = denoising_task(MODEL, 8).init(key)
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, BASE)


def test_noise_predictions_follow_from_clean_ones_and_may_be_clipped():
    x_t, t = normals(4, *SHAPE), jnp.int32(6)
    a, sigma = SCHEDULE.sqrt_alpha_bar[t], SCHEDULE.sigma[t]
    clean = Affine().apply(BASE, x_t, t)
    np.testing.assert_allclose(
        MODEL.eps_fn(BASE)(x_t, t), (x_t - a * clean) / sigma, rtol=1e-4, atol=1e-5
    )
    bounded = MODEL._replace(clip=0.5).eps_fn(BASE)(x_t, t)
    np.testing.assert_allclose(
        bounded, (x_t - a * jnp.clip(clean, -0.5, 0.5)) / sigma, rtol=1e-4, atol=1e-5
    )
