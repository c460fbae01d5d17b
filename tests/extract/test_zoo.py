"""The interface: names, missing parts, and samples that do not belong together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.data.normaliser import Normaliser
from diffreward.diffusion import cosine
from diffreward.extract import (
    EXTRACTORS,
    WEIGHTINGS,
    LossGap,
    OdeLogRatio,
    Preferences,
    Source,
    fit,
)
from diffreward.reward import Pair, Reward, score
from tests.extract.conftest import SCHEDULE

NEEDS = {
    "gradient_alignment": "needs pair",
    "loss_gap": "needs pair",
    "ode_log_ratio": "needs pair",
    "ito_log_ratio": "needs pair",
    "line_integral": "needs pair",
    "discriminator": "needs base and expert; Source has no base and no expert",
    "energy_pair": "needs base and expert; Source has no base and no expert",
    "distilled_energies": "needs pair",
    "residual_alignment": "needs pair",
    "bradley_terry": "needs preferences",
    "return_regression": "needs returns",
}


@pytest.mark.parametrize("name", EXTRACTORS)
def test_missing_parts_are_named(name):
    with pytest.raises(ValueError, match=f"{name} {NEEDS[name]}"):
        fit(name, Source())


def test_unknown_names_are_told_the_nearest():
    with pytest.raises(ValueError, match="unknown extractor 'gail'; did you mean"):
        fit("gail", Source())


def test_every_extractor_cites_its_source():
    for name, extractor in EXTRACTORS.items():
        assert "Reads" in (extractor.run.__doc__ or ""), name


UNITS = {"return_regression": "returns", "bradley_terry": "preferences"}


@pytest.mark.parametrize("name", EXTRACTORS)
def test_every_reward_says_its_units_and_every_setting_is_read(name, known):
    read = set()
    kind = EXTRACTORS[name].settings

    class Watched(kind):
        def __getattribute__(self, field):
            read.add(field)
            return super().__getattribute__(field)

    quick = {"steps": 1, "batch_size": 4, "width": 4, "depth": 1}
    settings = Watched(**{k: v for k, v in quick.items() if k in kind._fields})
    reward = fit(name, known("gaussians").source, settings)
    assert reward.units == UNITS.get(name, "nats")
    reward.reward_fn(jnp.zeros(2), jnp.int32(0))
    assert read >= set(kind._fields)


@pytest.mark.parametrize("name", EXTRACTORS)
def test_settings_of_another_extractor_are_refused(name, known):
    kind = EXTRACTORS[name].settings
    others = {extractor.settings for extractor in EXTRACTORS.values()} - {kind}
    for other in (*others, dict):
        with pytest.raises(ValueError, match=f"^{name} takes .* got ") as refused:
            fit(name, known("gaussians").source, other())
        fields = ", ".join(kind._fields)
        said = f"the settings {kind.__name__}({fields}), got {other.__name__}"
        assert str(refused.value).endswith(said)


def test_only_log_ratios_of_loss_gaps_are_nats(known):
    source = known("gaussians").source
    for weighting, rule in WEIGHTINGS.items():
        reward = fit("loss_gap", source, LossGap(weighting))
        assert reward.units == ("nats" if weighting in ("elbo", "integral") else "errors")
        assert rule.log_ratio == (reward.units == "nats")


def test_mismatched_inputs_are_refused(known):
    source = known("gaussians").source
    two, three = np.zeros((5, 2), np.float32), np.zeros((5, 3), np.float32)
    with pytest.raises(ValueError, match="samples of one shape"):
        fit("discriminator", Source(base=two, expert=three))
    with pytest.raises(ValueError, match="samples of one shape"):
        fit("bradley_terry", Source(base=two, preferences=Preferences(three, three)))
    with pytest.raises(ValueError, match="4 returns for 10 samples"):
        fit("return_regression", Source(base=two, expert=two, returns=np.zeros(4)))
    with pytest.raises(ValueError, match=r"pinned has shape \(3,\)"):
        fit("discriminator", Source(base=two, expert=two, pinned=jnp.zeros(3, bool)))
    with pytest.raises(ValueError, match="needs noise levels"):
        fit("discriminator", Source(base=two, expert=two))
    with pytest.raises(ValueError, match="differs from the pair's"):
        fit("discriminator", source._replace(schedule=cosine(3)))
    with pytest.raises(ValueError, match="differs from the pair's"):
        fit("gradient_alignment", source._replace(schedule=cosine(3)))
    with pytest.raises(ValueError, match="gradient_alignment needs samples"):
        fit("gradient_alignment", Source(pair=source.pair))
    for name in ("distilled_energies", "residual_alignment"):
        with pytest.raises(ValueError, match=f"{name} needs samples"):
            fit(name, Source(pair=source.pair))


def test_a_ranking_is_the_mean_noised_reward_in_normalised_coordinates(key):
    """rho = c . x_t: its mean over noise is c . x_0 times the mean sqrt(alpha_bar)."""
    slope = jnp.array([2.0, -1.0])
    normaliser = Normaliser(np.array([1.0, 2.0]), np.array([2.0, 4.0]))
    reward = Reward(lambda x, t: slope @ x, SCHEDULE, "by hand", "nats")
    x_0 = jnp.array([3.0, 10.0])
    share = float(SCHEDULE.sqrt_alpha_bar.mean())
    got = score(reward, x_0, key, 4000, as_="ranking")
    np.testing.assert_allclose(got, share * (2 * 3 - 10), atol=0.05)
    normalised = reward._replace(normaliser=normaliser)
    got = score(normalised, x_0, key, 4000, as_="ranking")
    np.testing.assert_allclose(got, share * (2 * 1 - 2), atol=0.05)
    again = jax.jit(lambda x: score(reward, x, key, 2))(x_0)
    np.testing.assert_allclose(again, score(reward, x_0, key, 2), rtol=1e-5)


@pytest.mark.parametrize(("probes", "tangents"), [(0, 6), (3, 3)])
def test_the_probability_flow_counts_the_tangents_it_pushes(probes, tangents):
    schedule = cosine(5)
    still = lambda x_t, t: x_t
    source = Source(Pair(still, still, schedule), base=np.zeros((4, 3, 2)))
    reward = fit("ode_log_ratio", source, OdeLogRatio(probes))
    # Two models, both ends of four steps; a forward pass each, and the tangents.
    assert reward.cost["evaluations_per_value"] == 2 * 2 * 4 * (1 + tangents)
