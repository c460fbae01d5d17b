"""Alignment as it is trained, against formulas by hand; a flipped sign fails each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import maze2d as configs
from diffreward.diffusion import posterior_mean
from diffreward.learn import (
    SOURCES,
    RecordedEnergy,
    RecordedState,
    RewardModel,
    alignment,
    distillation,
    energy_reward,
    log_density,
    noise,
    noise_at,
    record_task,
    reward_task,
)
from diffreward.learn.noise import Noised
from diffreward.networks import EnergyDenoiser, ResidualEnergy, TrajectoryMLP
from diffreward.reward import (
    OBJECTIVES,
    PAPER,
    SCORE,
    Alignment,
    Objective,
    align_scores,
    relative_score,
)
from experiments.build import build_reward
from tests.learn.toy import (
    BASE,
    EXPERT,
    MODEL,
    PINNED,
    SCHEDULE,
    SHAPE,
    Quadratic,
    normals,
    windows,
)

PAIR = MODEL.pair(BASE, EXPERT)
PARAMS = {"w": normals(7, *SHAPE), "curve": jnp.float32(0.3)}
FROZEN = {"base": BASE, "expert": EXPERT}


@pytest.fixture(autouse=True)
def _numpy_promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def clean_difference(x_t):
    """What the expert predicts of x_0, less what the base does."""
    slope = EXPERT["slope"] - BASE["slope"]
    return np.asarray(slope * x_t + EXPERT["shift"] - BASE["shift"], np.float64)


def levels(t):
    a = np.asarray(SCHEDULE.sqrt_alpha_bar, np.float64)[np.asarray(t)]
    sigma = np.asarray(SCHEDULE.sigma, np.float64)[np.asarray(t)]
    return a[..., None, None], sigma[..., None, None]


def score_errors(x_t, t, windows=1):
    """Squared errors and squares of the target, in the score objective's weight.

    With h = a d / sigma^2 for the clean difference d, and a gradient n a / sigma^2 (w +
    c x): the weight sigma^2 / a^2 leaves (n (w + c x) - d)^2 / sigma^2.
    """
    _, sigma = levels(t)
    difference = clean_difference(x_t)
    gradient = windows * np.asarray(PARAMS["w"] + PARAMS["curve"] * x_t)
    return ((gradient - difference) / sigma) ** 2, (difference / sigma) ** 2


def paper_errors(x_t, t):
    """The same of the paper's: bare network at the base's mean, means as targets."""
    mean = lambda x, s, of: posterior_mean(SCHEDULE, of["slope"] * x + of["shift"], x, s)
    rows = list(zip(x_t, t, strict=True))
    base, expert = (np.stack([mean(x, s, of) for x, s in rows]) for of in (BASE, EXPERT))
    gradient = np.asarray(PARAMS["w"]) + float(PARAMS["curve"]) * base
    return (gradient - (expert - base)) ** 2, (expert - base) ** 2


def test_rewards_of_windows_are_summed_in_nats_and_averaged_in_the_paper():
    x, t = normals(1, *SHAPE), jnp.int32(4)
    a, sigma = (v.item() for v in levels(t))
    bare = float(Quadratic().apply(PARAMS, x, t))
    score = RewardModel(Quadratic(), SCHEDULE, SCORE, num_windows=5)
    paper = score._replace(objective=PAPER)
    np.testing.assert_allclose(score.reward_fn(PARAMS)(x, t), 5 * a / sigma**2 * bare, 1e-5)
    np.testing.assert_allclose(score.window_fn(PARAMS)(x, t), a / sigma**2 * bare, 1e-5)
    np.testing.assert_allclose(paper.reward_fn(PARAMS)(x, t), bare, 1e-5)
    np.testing.assert_allclose(paper.window_fn(PARAMS)(x, t), bare, 1e-5)
    given = score.reward_fn(PARAMS, jnp.ones(2))(x, t)
    wanted = 5 * a / sigma**2 * (bare + 2 * float(x.sum()))
    np.testing.assert_allclose(given, wanted, 1e-5)


@pytest.mark.parametrize("name", ["score", "paper"])
def test_alignment_is_the_formula_by_hand_and_masks_leave_entries_out(name):
    x_t, t = normals(2, 6, *SHAPE), jnp.array([0, 2, 4, 6, 8, 11])
    objective = OBJECTIVES[name]
    reward = RewardModel(Quadratic(), SCHEDULE, objective)
    error, signal = score_errors(x_t, t) if name == "score" else paper_errors(x_t, t)
    noised = Noised(x_t, t, x_t)
    found, metrics = alignment(reward.reward_fn(PARAMS), PAIR, objective, noised)
    np.testing.assert_allclose(found, error.mean(), rtol=1e-3)
    np.testing.assert_allclose(metrics["fvu"], error.sum() / signal.sum(), rtol=1e-3)
    mask = np.asarray(np.random.default_rng(3).random((6, *SHAPE)) < 0.5)
    mask[:, 0, 0] = True
    part, metrics = alignment(
        reward.reward_fn(PARAMS), PAIR, objective, noised, jnp.asarray(mask)
    )
    wanted = ((error * mask).sum((1, 2)) / mask.sum((1, 2))).mean()
    np.testing.assert_allclose(part, wanted, rtol=1e-3)
    fvu = (error * mask).sum() / (signal * mask).sum()
    np.testing.assert_allclose(metrics["fvu"], fvu, rtol=1e-3)


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=list(OBJECTIVES))
def test_alignment_on_a_recorded_state_is_alignment_with_the_models(objective, key):
    reward = RewardModel(Quadratic(), SCHEDULE, objective, num_windows=2)
    x_t, t = normals(4, 1, *SHAPE), jnp.array([5])
    base, expert = (f(x_t[0], t[0]) for f in PAIR[:2])
    state = RecordedState(x_t[0], t[0], base, expert - base)
    found, _ = reward.record_loss(PARAMS, state)
    wanted, _ = alignment(reward.reward_fn(PARAMS), PAIR, objective, Noised(x_t, t, x_t))
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    # And so is the task that draws such states.
    data = {"x_t": x_t[:, None], "base": base[None, None], "t": t, "context": ()}
    data |= {"difference": (expert - base)[None, None]}
    task = record_task(reward, SHAPE, 4)
    drawn, _ = task.loss(PARAMS, None, key, task.draw(data, key))
    np.testing.assert_allclose(drawn, wanted, rtol=1e-4)


def test_distilling_a_recorded_state_is_distilling_the_model(key):
    student = EnergyDenoiser(TrajectoryMLP(8, 1))
    params = student.init(jax.random.key(1), jnp.zeros(SHAPE), jnp.int32(0))
    x_t, t = normals(4, 1, *SHAPE), jnp.array([5])
    base, expert = (f(x_t[0], t[0]) for f in PAIR[:2])
    state = RecordedState(x_t[0], t[0], base, expert - base)
    energy = RecordedEnergy(student, SCHEDULE)
    found, sums = energy.record_loss(params, state)
    noised = Noised(x_t, t, x_t)
    wanted, metrics = distillation(student, params, PAIR.base, SCHEDULE, noised)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    np.testing.assert_allclose(sums["residual"] / sums["signal"], metrics["fvu"], rtol=1e-4)
    reward = RewardModel(ResidualEnergy(student.net), SCHEDULE, SCORE)
    task = record_task(reward, SHAPE, 4, start=params)
    assert task.init(key)["energy"] is params


def test_the_gradient_of_the_log_density_is_the_score_of_the_model(key):
    network = EnergyDenoiser(TrajectoryMLP(8, 1))
    model = MODEL._replace(network=network, pinned=jnp.zeros(SHAPE, bool))
    params, x = model.init(key), normals(4, *SHAPE)
    for t in (0, 3, SCHEDULE.num_steps - 1):
        found = jax.grad(log_density(model, params))(x, jnp.int32(t))
        score = -model.eps_fn(params)(x, jnp.int32(t)) / SCHEDULE.sigma[t]
        np.testing.assert_allclose(found, score, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="needs an energy"):
        log_density(MODEL, BASE)


VALUES = {
    "base": 1.0,
    "expert": 2.0,
    "base_at_expert": 3.0,
    "expert_at_base": 4.0,
    "steered": 5.0,
}
EXPECTED = {
    "base": (1.0,),
    "expert": (2.0,),
    "mixed": (1.0, 2.0),
    "models": (1.0, 2.0),
    "crossed": (1.0, 2.0, 3.0, 4.0),
    "steered": (1.0, 2.0, 3.0, 4.0, 5.0),
}


@pytest.mark.parametrize("source", SOURCES)
def test_rewards_are_trained_on_equal_parts_of_their_source(source, key):
    reward = RewardModel(Quadratic(), SCHEDULE, SCORE, num_windows=2)
    task = reward_task(MODEL, reward, source, 2 * len(EXPECTED[source]))
    data = {name: windows(value) for name, value in VALUES.items()}
    batch = task.draw(data, key)
    parts = np.split(np.asarray(batch["x_0"]), len(EXPECTED[source]))
    for value, part in zip(EXPECTED[source], parts, strict=True):
        assert np.all((part[:, 0] >= value) & (part[:, 0] < value + 1))
    x_t, t, _ = noise(SCHEDULE, key, batch["x_0"], PINNED)
    error, signal = score_errors(x_t, t, windows=2)
    free = ~np.asarray(PINNED)
    found, metrics = task.loss(PARAMS, FROZEN, key, batch)
    np.testing.assert_allclose(found, error[:, free].mean(), rtol=1e-3)
    fvu = error[:, free].sum() / signal[:, free].sum()
    np.testing.assert_allclose(metrics["fvu"], fvu, rtol=1e-3)


def test_the_paper_forgets_conditions_and_padding_and_nats_do_not(key):
    model = MODEL._replace(mask_padding=True)
    free, found = ~np.asarray(PINNED), {}
    for objective in (SCORE, PAPER):
        task = reward_task(model, RewardModel(Quadratic(), SCHEDULE, objective), "base", 16)
        batch = task.draw({"base": windows(1.0)}, key)
        valid = np.asarray(batch["valid"])
        assert (~valid).sum() > 0
        found[objective.name] = float(task.loss(PARAMS, FROZEN, key, batch)[0])
    x_t, t, eps = noise(SCHEDULE, key, batch["x_0"], PINNED)
    error, _ = score_errors(x_t, t)
    counted = free & valid[:, :, None]
    wanted = ((error * counted).sum((1, 2)) / counted.sum((1, 2))).mean()
    assert found["score"] == pytest.approx(wanted, rel=1e-3)
    error, _ = paper_errors(noise_at(SCHEDULE, batch["x_0"], t, eps), t)
    assert found["paper"] == pytest.approx(error.mean(), rel=1e-3)


def test_the_energy_reward_is_the_difference_of_scores():
    model = MODEL._replace(network=EnergyDenoiser(TrajectoryMLP(8, 1)))
    base, expert = (model.init(jax.random.key(i)) for i in (0, 1))
    rho, pair = energy_reward(model, base, expert), model.pair(base, expert)
    x, t = normals(5, *SHAPE), jnp.int32(7)
    wanted = relative_score(pair, x, t)
    np.testing.assert_allclose(jax.grad(rho)(x, t), wanted, rtol=1e-3, atol=1e-4)
    assert float(jnp.abs(wanted).max()) > 0.01
    with pytest.raises(ValueError, match="conservative models of one network; set"):
        energy_reward(MODEL, BASE, EXPERT)


DOUBLE = Objective(
    name="double",
    align=lambda pair, x_t, t: Alignment(
        x_t, 2 * relative_score(pair, x_t, t), align_scores(pair, x_t, t).weight
    ),
    scale=SCORE.scale,
    conditioned=True,
    sums_windows=True,
    absorbs_variance=False,
    activation="mish",
)
"""Twice the log ratio: an objective that the package does not know."""


def test_an_objective_of_ones_own_is_trained(key):
    """Gradient descent on reward_task finds twice the score where SCORE finds it once.

    Models of one slope differ by a constant: d = shift_E - shift_B, and the free entries
    of w are d, or 2 d.
    """
    frozen = {"base": BASE, "expert": EXPERT | {"slope": BASE["slope"]}}
    difference = np.asarray(EXPERT["shift"] - BASE["shift"])
    free = ~np.asarray(PINNED)
    for objective, factor in ((SCORE, 1), (DOUBLE, 2)):
        reward = RewardModel(Quadratic(), SCHEDULE, objective)
        task = reward_task(MODEL, reward, "mixed", 24)
        data = {"base": windows(0.0), "expert": windows(1.0)}

        def step(params, key, task=task, data=data):
            draw_key, loss_key = jax.random.split(key)
            batch = task.draw(data, draw_key)
            gradient = jax.grad(
                lambda w: task.loss({**params, "w": w}, frozen, loss_key, batch)[0]
            )
            return {**params, "w": params["w"] - 0.3 * gradient(params["w"])}, None

        start = {"w": jnp.zeros(SHAPE), "curve": jnp.zeros(())}
        found, _ = jax.lax.scan(step, start, jax.random.split(key, 60))
        np.testing.assert_allclose(
            found["w"][free], factor * difference[free], rtol=1e-2, atol=1e-2
        )


def test_an_objective_of_ones_own_is_named_by_a_config(monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "double", DOUBLE)
    section = configs.get_config("umaze,smoke").rewards
    with section.unlocked():
        section.preset = "double"
    assert build_reward(section, MODEL).objective is DOUBLE
