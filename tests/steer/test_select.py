"""Scale selection on metrics whose best scale is known."""

import numpy as np
import pytest

from diffreward.steer.select import Choice, choose_scale, score_on_test, tilt_ess

SCALES = (1.0, 0.0, 0.5, 2.0)
VALIDATION, TEST = range(20), range(100, 130)


def metric(scale, seeds):
    """Best at 1; at 0.5 nearly as good; noise shared by all scales."""
    noise = np.array([np.random.default_rng(s).normal() for s in seeds])
    return -((scale - 0.9) ** 2) + noise


def test_the_best_scale_and_its_numbers():
    choice = choose_scale(metric, SCALES, VALIDATION)
    assert choice.scale == 1.0
    assert [p.scale for p in choice.points] == [0.0, 0.5, 1.0, 2.0]
    values = metric(1.0, VALIDATION)
    point = choice.points[2]
    assert point.mean == pytest.approx(values.mean())
    assert point.standard_error == pytest.approx(values.std(ddof=1) / 20**0.5)
    assert np.isnan(point.kl)
    assert np.isnan(point.ess)


def test_one_standard_error_takes_the_least_departure():
    # One standard error is about 0.2: 0.5 is 0.15 below the best, 0 is 0.8 below.
    choice = choose_scale(metric, SCALES, VALIDATION, one_standard_error=True)
    error = choice.points[2].standard_error
    assert 0.15 < error < 0.8
    assert choice.scale == 0.5


def test_ties_go_to_the_smaller_scale():
    flat = lambda scale, seeds: np.ones(len(seeds))
    assert choose_scale(flat, SCALES, VALIDATION).scale == 0.0


def test_kl_and_effective_sample_size_are_reported():
    rewards = np.array([0.0, 1.0, 3.0])
    told = []
    choice = choose_scale(
        metric,
        SCALES,
        VALIDATION,
        chain_kl=lambda s: 7 * s,
        base_rewards=rewards,
        progress=told.append,
    )
    assert tuple(told) == choice.points
    for p in choice.points:
        w = np.exp(p.scale * rewards)
        assert p.kl == 7 * p.scale
        assert p.ess == pytest.approx(w.sum() ** 2 / (w**2).sum() / 3)
    assert tilt_ess(rewards + 1e4, 1.0) == pytest.approx(choice.points[2].ess)


def test_gaussian_rewards_leave_the_closed_form_share():
    # For rho ~ N(0, s^2): (E w)^2 / E w^2 = exp(-s^2).
    rewards = np.random.default_rng(0).normal(size=200_000) * 0.8
    assert tilt_ess(rewards, 1.0) == pytest.approx(np.exp(-0.64), rel=0.02)


def test_the_test_score_is_of_the_chosen_scale_on_other_seeds():
    choice = choose_scale(metric, SCALES, VALIDATION)
    np.testing.assert_array_equal(score_on_test(metric, choice, TEST), metric(1.0, TEST))
    with pytest.raises(ValueError, match="seed 19 chose the scale"):
        score_on_test(metric, choice, range(19, 40))


def test_selection_never_sees_a_test_seed():
    seen = []

    def spy(scale, seeds):
        seen.extend(seeds)
        return metric(scale, seeds)

    choose_scale(spy, SCALES, VALIDATION)
    assert set(seen) == set(VALIDATION)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((metric, (), VALIDATION), "no scales"),
        ((metric, SCALES, (1,)), "1 validation seeds"),
        ((metric, SCALES, (1, 1)), "must be different numbers"),
        ((lambda s, z: np.ones(3), SCALES, VALIDATION), r"shape \(3,\)"),
        ((lambda s, z: np.full(20, np.nan), SCALES, VALIDATION), "not finite"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        choose_scale(*arguments)
    with pytest.raises(ValueError, match="test_seeds must be different"):
        score_on_test(metric, Choice(1.0, (), ()), [])


def test_members_share_a_scale_and_their_episodes():
    """One row per member: the mean is over all, the error that of the shared episodes."""
    both = lambda scale, seeds: np.stack([metric(scale, seeds), metric(scale, seeds) - 2])
    choice = choose_scale(both, SCALES, VALIDATION)
    alone = choose_scale(lambda *a: metric(*a) - 1, SCALES, VALIDATION)
    assert choice.scale == alone.scale
    for ours, theirs in zip(choice.points, alone.points, strict=True):
        np.testing.assert_allclose(ours[:3], theirs[:3], rtol=1e-9)
    assert score_on_test(both, choice, TEST).shape == (2, len(TEST))
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        choose_scale(lambda s, z: np.ones((2, 3)), SCALES, VALIDATION)
