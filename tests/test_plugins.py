"""Parts from outside the package: each is listed in one table, and everything uses it."""

from types import SimpleNamespace
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffreward as dr
from configs import maze2d
from diffreward.data import stack_windows
from diffreward.extract import EXTRACTORS, Extractor, LossGap, Source
from diffreward.learn import RecordedState, RewardModel, denoising_task, init
from diffreward.reward import OBJECTIVES, SCORE
from diffreward.reward.alignment import align_scores
from experiments import build
from experiments.validation import fvu_by_level
from tests.learn import toy

HORIZON, DIM = 8, 6


@pytest.fixture
def config():
    config = maze2d.get_config("umaze,smoke")
    with config.unlocked():
        config.model.horizon = HORIZON
    return config


class Waves(nn.Module):
    """A denoiser of the tests' own."""

    @nn.compact
    def __call__(self, x, t):
        return nn.Dense(x.shape[-1])(jnp.sin(x)) + 0.0 * t.astype(jnp.float32)


class Height(nn.Module):
    """A reward of the tests' own."""

    @nn.compact
    def __call__(self, x, t):
        return nn.Dense(1)(jnp.sin(x)).sum()


def test_a_network_for_denoisers(config, monkeypatch, key):
    monkeypatch.setitem(build.NETWORKS, "waves", lambda section: Waves())
    with config.unlocked():
        config.model.network = "waves"
    model = build.build_denoiser(config.model, 2, 4)
    params = model.init(key)
    x = jax.random.normal(key, (HORIZON, DIM))
    assert model.eps_fn(params)(x, jnp.int32(3)).shape == (HORIZON, DIM)
    batch = {"x_0": x[None], "valid": jnp.ones((1, HORIZON))}
    loss = lambda p: denoising_task(model, 1).loss(p, None, key, batch)[0]
    with jax.numpy_rank_promotion("allow"):  # the trainer's batches broadcast
        gradient = jax.tree.leaves(jax.grad(loss)(params))
    assert all(jnp.abs(g).max() > 0 for g in gradient)


def test_a_network_for_rewards(config, monkeypatch, key):
    monkeypatch.setitem(
        build.REWARDS, "height", lambda section, objective, window, model: Height()
    )
    with config.unlocked():
        config.rewards.network = "height"
    model = build.build_denoiser(config.model, 2, 4)
    reward = build.build_reward(config.rewards, model)
    params = init(reward.network, model.shape, key)
    x, t = jax.random.normal(key, (HORIZON, DIM)), jnp.int32(3)
    wanted = SCORE.scale(model.schedule, t) * Height().apply(params, x, t)
    np.testing.assert_allclose(reward.reward_fn(params)(x, t), wanted, rtol=1e-5)


def test_a_network_whose_time_path_has_no_name_is_measured(key):
    reward = RewardModel(Height(), toy.SCHEDULE, SCORE)
    params = init(reward.network, toy.SHAPE, key)
    stack = lambda tree: jax.tree.map(lambda x: x[None], tree)
    frozen = {"base": toy.BASE, "expert": stack(toy.EXPERT)}
    sets = {"base": toy.windows(0.0), "expert": stack_windows([toy.windows(1.0)])}
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        measure = fvu_by_level(toy.MODEL, reward, frozen, sets)
        found = measure(SimpleNamespace(ema_params=stack(params)))  # pyright: ignore
    assert found["fvu"].shape == (1,)
    assert "time_gradient" not in found


def test_a_weight_of_the_alignment(config, monkeypatch, key):
    def flat(pair, x_t, t):
        return align_scores(pair, x_t, t)._replace(weight=jnp.ones(()))

    monkeypatch.setitem(OBJECTIVES, "flat", SCORE._replace(name="flat", align=flat))
    with config.unlocked():
        config.rewards.preset = "flat"
    model = build.build_denoiser(config.model, 2, 4)
    reward = build.build_reward(config.rewards, model)
    params, t = init(reward.network, model.shape, key), jnp.int32(3)
    x, base, difference = jax.random.normal(key, (3, HORIZON, DIM))
    state = RecordedState(x, t, base, difference)
    found = reward.record_loss(params, state)[0]
    known = reward._replace(objective=SCORE).record_loss(params, state)[0]
    weight = jnp.square(model.schedule.sigma[t]) / model.schedule.alpha_bar[t]
    np.testing.assert_allclose(found * weight, known, rtol=1e-4)


def test_an_extractor(monkeypatch, tmp_path):
    class Leaning(NamedTuple):
        steepness: float = 1.0

    def leaning(source, settings, seed, workdir):
        slope = settings.steepness * (source.expert.mean(0) - source.base.mean(0))
        rho = lambda x_t, t: slope @ x_t
        return dr.Reward(rho, source.schedule, "leaning", units="unknown")

    monkeypatch.setitem(EXTRACTORS, "leaning", Extractor(leaning, Leaning, trains=False))
    toy = dr.toy_pair(50, num_steps=4)
    base, expert = jnp.split(toy.train, 2)
    source = Source(base=base, expert=expert, schedule=dr.diffusion.cosine(4))
    reward = dr.extract.fit("leaning", source, workdir=tmp_path)
    assert (reward.extractor, reward.shape) == ("leaning", (2,))
    assert not list(tmp_path.iterdir())
    steep = dr.extract.fit("leaning", source, Leaning(steepness=2.0))
    x, t = jnp.ones(2), jnp.int32(0)
    np.testing.assert_allclose(steep.reward_fn(x, t), 2 * reward.reward_fn(x, t))
    with pytest.raises(ValueError, match=r"takes the settings Leaning\(steepness\)"):
        dr.extract.fit("leaning", source, LossGap())
    assert dr.score(reward, expert).mean() > dr.score(reward, base).mean()
    with pytest.raises(ValueError, match="not in nats but in units that nobody has named"):
        dr.score(reward, base, as_="nats")
