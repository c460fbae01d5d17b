"""One Gaussian, told in every convention there is, must give one noise prediction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.data import Normaliser, laws
from diffreward.diffusion import (
    DiffusionModel,
    check_prediction,
    classifier_free,
    common_schedule,
    cosine,
    discrete,
    from_log_snr,
    given,
    linear,
    match_times,
    rectified_flow,
    to_eps_fn,
    variance_exploding,
    variance_preserving,
    variance_preserving_cosine,
)

LAW = laws.gaussian(jnp.array([1.0, -2.0]), jnp.array([[0.8, 0.55], [0.55, 0.5]]))
X = jnp.array([0.3, -0.7])


def clean_mean(x, alpha, sigma):
    """E[x_0 | alpha x_0 + sigma eps = x] of LAW, by the textbook formula."""
    mean, cov = LAW.means[0], LAW.covariances[0]
    gain = alpha * cov @ jnp.linalg.inv(alpha**2 * cov + sigma**2 * jnp.eye(2))
    return mean + gain @ (x - alpha * mean)


def oracle(x, alpha, sigma):
    return (x - alpha * clean_mean(x, alpha, sigma)) / sigma


def outputs(kind, x, alpha, sigma, slopes):
    """What an exact network of the given kind says."""
    x_0 = clean_mean(x, alpha, sigma)
    eps = (x - alpha * x_0) / sigma
    if kind == "velocity":
        return slopes[0] * x_0 + slopes[1] * eps
    return {"eps": eps, "x_0": x_0, "v": alpha * eps - sigma * x_0, "score": -eps / sigma}[
        kind
    ]


# alpha and sigma written out again, as functions of a traced time.
def vp(u):
    a = jnp.exp(-0.25 * u**2 * 19.9 - 0.05 * u)
    return a, jnp.sqrt(1 - a**2)


CONVENTIONS = {
    "vp-eps": (variance_preserving(), "eps", vp),
    "vp-v": (variance_preserving(), "v", vp),
    "ve-score": (variance_exploding(), "score", lambda u: (jnp.ones(()), u)),
    "edm": (variance_exploding(), "x_0", lambda u: (jnp.ones(()), u)),
    "flow": (rectified_flow(), "velocity", lambda u: (1 - u, u)),
    "flow-reversed": (rectified_flow(data_at=1), "velocity", lambda u: (u, 1 - u)),
    "cosine-x_0": (
        variance_preserving_cosine(),
        "x_0",
        lambda u: (
            jnp.cos((u + 0.008) / 1.008 * jnp.pi / 2) / jnp.cos(0.008 / 1.008 * jnp.pi / 2),
            jnp.sin(
                jnp.arccos(
                    jnp.cos((u + 0.008) / 1.008 * jnp.pi / 2)
                    / jnp.cos(0.008 / 1.008 * jnp.pi / 2)
                )
            ),
        ),
    ),
}


def network(kind, levels, sign):
    def apply(x, u):
        slopes = jnp.asarray([-sign, sign])
        return outputs(kind, x, *levels(u), slopes)

    return apply


@pytest.mark.parametrize("name", CONVENTIONS)
def test_every_convention_gives_the_same_noise(name):
    process, kind, levels = CONVENTIONS[name]
    sign = -1.0 if name == "flow-reversed" else 1.0
    model = DiffusionModel(network(kind, levels, sign), process, kind)
    schedule = from_log_snr(np.linspace(5.0, -5.0, 7))
    eps_fn = to_eps_fn(model, schedule)
    for t in (0, 3, 6):
        want = oracle(X, schedule.sqrt_alpha_bar[t], schedule.sigma[t])
        np.testing.assert_allclose(eps_fn(X, jnp.int32(t)), want, rtol=2e-3, atol=2e-4)


def test_a_wrong_declaration_shows():
    process, _, levels = CONVENTIONS["flow"]
    model = DiffusionModel(network("velocity", levels, 1.0), process, "x_0")
    schedule = from_log_snr(np.linspace(5.0, -5.0, 7))
    got = to_eps_fn(model, schedule)(X, jnp.int32(3))
    assert not np.allclose(got, oracle(X, schedule.sqrt_alpha_bar[3], schedule.sigma[3]))


def discrete_model(schedule, **options):
    def apply(x, t):
        if options.get("integer", True):
            assert jnp.issubdtype(t.dtype, jnp.integer)
            a, s = schedule.sqrt_alpha_bar[t], schedule.sigma[t]
        else:
            index = jnp.arange(schedule.num_steps, dtype=jnp.float32)
            log_snr = jnp.interp(t, index, jnp.log(schedule.snr))
            a, s = jnp.sqrt(jax.nn.sigmoid(log_snr)), jnp.sqrt(jax.nn.sigmoid(-log_snr))
        return oracle(x, a, s)

    return DiffusionModel(apply, discrete(schedule, **options))


def test_own_schedule_is_asked_at_its_own_levels_to_the_bit():
    schedule = cosine(20)
    model = discrete_model(schedule)
    eps_fn = to_eps_fn(model, schedule)
    for t in range(20):
        np.testing.assert_array_equal(eps_fn(X, jnp.int32(t)), model.apply(X, jnp.int32(t)))


@pytest.mark.parametrize(("integer", "tolerance"), [(False, 2e-3), (True, 2e-2)])
def test_another_number_of_steps_is_matched_by_log_snr(integer, tolerance):
    # 1000 levels of the linear schedule, asked at 7 levels of another.
    model = discrete_model(linear(1000), integer=integer)
    schedule = from_log_snr(np.linspace(5.0, -5.0, 7))
    eps_fn = to_eps_fn(model, schedule)
    for t in range(7):
        want = oracle(X, schedule.sqrt_alpha_bar[t], schedule.sigma[t])
        np.testing.assert_allclose(eps_fn(X, jnp.int32(t)), want, atol=tolerance)


def test_interpolation_between_levels_is_of_second_order():
    # Twice the levels, a quarter of the error.
    schedule = from_log_snr(np.linspace(3.0, -3.0, 5))

    def error(levels):
        coarse = from_log_snr(np.linspace(6.0, -6.0, levels))
        eps_fn = to_eps_fn(discrete_model(coarse), schedule)
        t = jnp.int32(1)
        want = oracle(X, schedule.sqrt_alpha_bar[t], schedule.sigma[t])
        return float(jnp.abs(eps_fn(X, t) - want).max())

    # Grids of which the wanted level (1.5) is a midpoint: 6 - 1.5 = (k + 1/2) spacing.
    errors = [error(1 + round(12 / h)) for h in (3.0, 1.0, 1 / 3)]
    assert errors[0] / errors[1] == pytest.approx(9, rel=0.35)
    assert errors[1] / errors[2] == pytest.approx(9, rel=0.35)


@pytest.mark.parametrize("variance", [0.01, 0.1, 0.5, 1.0])
def test_the_error_of_interpolation_is_the_stated_one(variance):
    """Gaussian data, at 20 levels: up to a quarter of the noise where they are narrow."""
    coarse = linear(20)
    wide = laws.gaussian(jnp.zeros(2), variance * jnp.eye(2))
    exact = lambda x, t: laws.eps(wide, x, coarse.alpha_bar[t])
    model = DiffusionModel(exact, discrete(coarse), "eps")
    noise = 1 - np.asarray(coarse.alpha_bar, np.float64)
    middle = np.sqrt(noise[:4] * noise[1:5])  # the worst place of the worst variance
    schedule = from_log_snr(np.log((1 - middle) / middle))
    eps_fn = to_eps_fn(model, schedule)
    k = variance / max(1 - variance, 1e-9)
    for t in range(4):
        s_0, s, s_1 = noise[t], middle[t], noise[t + 1]
        share = k * (s - s_0) * (s_1 - s) / (s * (s_0 + k) * (s_1 + k))
        assert share <= np.tanh(np.log(s_1 / s_0) / 4) ** 2
        want = laws.eps(wide, X, schedule.alpha_bar[t])
        np.testing.assert_allclose(eps_fn(X, jnp.int32(t)) / want - 1, -share, atol=2e-3)
        if t == 0 and variance == 0.01:
            assert share > 0.1


def test_common_factor_of_the_coordinates_is_a_shift_of_log_snr():
    # The model lives in y = 2 x + b; asked in x it must know LAW's own noise.
    schedule = from_log_snr(np.linspace(4.0, -4.0, 5))
    b = jnp.array([0.5, -1.0])
    process, kind, levels = CONVENTIONS["vp-eps"]
    mean, cov = LAW.means[0], LAW.covariances[0]

    def apply(y, u):
        alpha, sigma = levels(u)
        total = alpha**2 * 4 * cov + sigma**2 * jnp.eye(2)
        return sigma * jnp.linalg.inv(total) @ (y - alpha * (2 * mean + b))

    ours = Normaliser(np.array([1.0, 2.0]), np.array([2.0, 4.0]))
    # data = scale x + shift = theirs.scale (2 x + b) + theirs.shift
    theirs = Normaliser(
        np.array([1.0, 2.0]) - np.array([1.0, 2.0]) * np.asarray(b), np.array([1.0, 2.0])
    )
    eps_fn = to_eps_fn(DiffusionModel(apply, process, kind, theirs), schedule, ours)
    for t in range(5):
        want = oracle(X, schedule.sqrt_alpha_bar[t], schedule.sigma[t])
        np.testing.assert_allclose(eps_fn(X, jnp.int32(t)), want, atol=5e-4)


def test_levels_out_of_range_are_refused():
    model = DiffusionModel(lambda x, u: x, variance_exploding(sigma_max=10.0), "x_0")
    with pytest.raises(ValueError, match=r"level 3 of the pair has log-SNR -6, but the"):
        to_eps_fn(model, from_log_snr(np.array([3.0, 0.0, -4.0, -6.0])))


def test_consistency_models_are_refused_with_the_reason():
    with pytest.raises(ValueError, match="no score; use the diffusion model it was dist"):
        check_prediction("consistency")
    with pytest.raises(ValueError, match="unknown prediction 'noise'; did you mean"):
        check_prediction("noise")
    model = DiffusionModel(lambda x, u: x, variance_preserving(), "velocity")
    eps_fn = to_eps_fn(model, from_log_snr(np.linspace(3.0, -3.0, 4)))
    with pytest.raises(ValueError, match="declare the model's process"):
        eps_fn(X, jnp.int32(2))


def test_times_of_a_matched_level_are_exact():
    process = variance_preserving()
    u = np.array([0.01, 0.3, 0.99])
    np.testing.assert_allclose(match_times(process, process.log_snr(u)), u, rtol=1e-9)
    chain = discrete(cosine(20))
    np.testing.assert_array_equal(
        match_times(chain, np.log(np.asarray(cosine(20).snr))), np.arange(20)
    )


def test_common_schedule_lies_in_every_range():
    processes = [variance_exploding(sigma_max=20.0), rectified_flow(), discrete(cosine(20))]
    schedule = common_schedule(processes, 16)
    assert schedule.num_steps == 16
    for process in processes:
        match_times(process, np.log(np.asarray(schedule.snr)))
    with pytest.raises(ValueError, match="no range of log-SNR"):
        common_schedule(
            [variance_exploding(sigma_max=0.1), variance_exploding(sigma_min=1.0)]
        )


def test_classifier_free_guidance_is_linear_in_its_weight():
    apply = lambda x, u, c: x * u + c
    one, none = given(apply, jnp.float32(3.0)), given(apply, jnp.float32(1.0))
    u = jnp.float32(2.0)
    np.testing.assert_allclose(classifier_free(one, none, 0.0)(X, u), none(X, u))
    np.testing.assert_allclose(classifier_free(one, none, 1.0)(X, u), one(X, u))
    np.testing.assert_allclose(
        classifier_free(one, none, 2.5)(X, u), X * 2.0 + 1.0 + 2.5 * 2.0
    )
