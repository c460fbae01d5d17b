"""Every config builds, every key is read, and mistakes are named."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from configs import collect, locomotion, maze2d
from configs.common import ConfigDict, choose, parse_switches
from diffreward import data as d
from diffreward.networks import apply
from experiments import build
from experiments.build import build_denoiser
from experiments.locomotion import run as locomotion_experiment
from experiments.maze2d import build as experiment_build
from experiments.maze2d import evaluate
from experiments.maze2d import run as experiment

ROOT = Path(__file__).parents[1]
EVERY = [f"{m},{p}" for m in maze2d.MAZES for p in maze2d.PRESETS]


def leaves(config: ConfigDict, prefix: str = "") -> list[str]:
    found = []
    for key, value in config.items():
        inner = isinstance(value, ConfigDict)
        found += leaves(value, f"{prefix}{key}.") if inner else [prefix + key]
    return found


def start(config: ConfigDict):
    """What a maze run does before anything is written."""
    experiment.check(config)
    return experiment.build(config, Path("never written"))


@pytest.mark.parametrize("argument", EVERY)
def test_every_preset_builds_and_is_not_changed_by_building(argument):
    config = maze2d.get_config(argument)
    before = config.to_json()
    start(config)
    assert config.to_json() == before
    assert config.is_locked


@pytest.mark.parametrize("preset", locomotion.PRESETS)
@pytest.mark.parametrize("task", locomotion.TASKS)
def test_every_locomotion_preset_builds(task, preset):
    locomotion_experiment.build(locomotion.get_config(f"{task},{preset},d4rl"), ROOT)


@pytest.mark.parametrize("preset", locomotion.PRESETS)
@pytest.mark.parametrize("task", locomotion.TASKS)
def test_collected_episodes_suffice_for_every_split(task, preset):
    """Even if none ends before the time limit; `collect_again` shares out the rows."""
    config, index = locomotion.get_config(f"{task},{preset}"), d.read_index(task)
    files = [policy["file"] for policy in index["policies"]]
    replay = files.index(index["medium"]) + 1
    for parts in (replay, 8):
        share = -(-config.data.transitions // parts)
        d.split_episodes(parts * -(-share // 1000), config.seed)


def test_missing_policies_are_named_before_any_work():
    config = locomotion.get_config("hopper,smoke")
    with config.unlocked():
        config.data.base = "collect:ant/expert"
    with pytest.raises(ValueError, match=r"no policies for 'ant'; .* use other data"):
        locomotion_experiment.check(config)


def test_all_presets_have_the_same_keys():
    for module, every in (
        (maze2d, EVERY),
        (locomotion, [f"{p},{s}" for p in locomotion.PRESETS for s in locomotion.STUDIES]),
        (collect, collect.PRESETS),
    ):
        keys = {frozenset(leaves(module.get_config(argument))) for argument in every}
        assert len(keys) == 1


def test_studies_change_what_they_say():
    get = lambda study: locomotion.get_config(f"hopper,{study}")
    assert get("transfer").other_base
    assert get("small-data").data.limit == get("none").data.transitions // 10
    assert get("no-data").rewards.source == "models"
    assert not get("none").other_base
    assert get("medium-base").data.base == "collect:hopper/medium"
    rate = get("none").rewards.learning_rate
    assert get("high-rate").rewards.learning_rate == pytest.approx(5 * rate)
    assert get("low-rate").paper_rewards.learning_rate < get("none").rewards.learning_rate
    assert get("clipped").rewards.clip_value > get("none").rewards.clip_value == 0
    assert get("clipped-weights").paper_rewards.clip_weights == 3
    assert get("l2").paper_rewards.l2 == pytest.approx(2e-4)
    assert get("noised").data.base_noise == pytest.approx(0.5)
    assert get("short-base").base.steps == get("none").base.steps // 10
    assert get("grid").evaluation.paper_t_stops == (0, 1, 2, 5, 8, 10)


@pytest.mark.parametrize("module", [maze2d, locomotion, collect])
def test_every_key_is_read(module):
    sources = "".join(p.read_text() for p in (ROOT / "experiments").rglob("*.py"))
    for leaf in leaves(module.get_config()):
        name = leaf.rsplit(".", 1)[-1]
        assert re.search(rf"\.{name}\b", sources), f"no experiment reads {leaf}"


def test_paper_preset_has_the_published_settings():
    c = maze2d.get_config("umaze,paper")
    model = build_denoiser(c.model, 2, 4)
    assert (c.model.horizon, c.model.num_steps, c.base.steps) == (256, 100, 500_000)
    assert bool(model.pinned[0, 2:].all())
    assert bool(model.pinned[-1, 2:].all())
    assert model.pinned.sum() == 8
    assert (c.rewards.batch_size, c.rewards.learning_rate) == (256, 5e-5)
    assert c.rewards.preset == "paper"
    assert c.window_rewards.strided


def test_smoke_is_small():
    c = maze2d.get_config("umaze,smoke")
    assert len(c.goals) == 2
    assert max(c.base.steps, c.rewards.steps) <= 1000


def test_wrong_names_are_answered_with_the_nearest():
    with pytest.raises(ValueError, match="unknown switch 'umazee'; did you mean 'umaze'"):
        maze2d.get_config("umazee")
    with pytest.raises(ValueError, match="two values for maze: 'umaze' and 'open'"):
        maze2d.get_config("umaze,open")
    with pytest.raises(ValueError, match="did you mean 'inner'"):
        choose("network", "iner", build.REWARDS)
    with pytest.raises(AttributeError, match="horizon"):
        _ = maze2d.get_config().model.horizn


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("maze", "umze", "did you mean 'umaze'"),
        ("goals", (1, 9), "from 1 to 8"),
        ("goals", (), "from 1 to 8"),
        ("model.network", "mpl", "did you mean 'mlp'"),
        ("model.schedule", "cosin", "did you mean 'cosine'"),
        ("rewards.network", "iner", "did you mean 'inner'"),
        ("rewards.preset", "papr", "did you mean 'paper'"),
        ("rewards.source", "bse", "did you mean 'base'"),
        ("window_rewards.window", 7, "does not divide"),
        ("experts.init", "bas", "did you mean 'base'"),
        ("evaluation.space", "ep", "did you mean 'eps'"),
    ],
)
def test_wrong_values_are_refused_before_any_work(key, value, message):
    config = maze2d.get_config("umaze,smoke")
    with config.unlocked():
        config.update_from_flattened_dict({key: value})
    with pytest.raises(ValueError, match=message):
        start(config)


def test_switches_default_to_the_first_name():
    kinds = {"maze": ("a", "b"), "preset": ("x", "y")}
    assert parse_switches("", **kinds) == {"maze": "a", "preset": "x"}
    assert parse_switches(" y , b", **kinds) == {"maze": "b", "preset": "y"}


def test_bfloat16_parameters_mean_bfloat16_products():
    """The switch reaches the matrix products, and the result is float32 again."""
    import jax
    import jax.numpy as jnp

    model = build_denoiser(maze2d.get_config("umaze,smoke").model, 2, 4)
    x, t = jnp.zeros(model.shape), jnp.zeros((), jnp.int32)
    params = model.network.init(jax.random.key(0), x, t)
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    run = lambda p: apply(model.network, p, x, t)
    for p, precision in ((half, ":bf16["), (params, ":f32[")):
        with jax.numpy_dtype_promotion("standard"):  # flax norms mix precisions
            jaxpr = jax.make_jaxpr(run)(p)
        assert jaxpr.out_avals[0].dtype == jnp.float32
        products = [line for line in str(jaxpr).splitlines() if "dot_general" in line]
        assert products
        assert all(precision in line.split("=")[0] for line in products)


def test_the_loss_of_a_denoiser_weighs_the_first_action():
    c = locomotion.get_config("hopper,paper,d4rl")
    weight = build.build_denoiser(c.model, 3, 11).weight
    assert c.model.action_weight != 1
    assert (weight[0, :3] == c.model.action_weight).all()
    assert weight.sum() == weight.size + 3 * (c.model.action_weight - 1)


@pytest.mark.parametrize("preset", ["score", "paper"])
def test_plans_are_steered_with_the_variance_that_the_reward_lacks(preset, monkeypatch):
    config = maze2d.get_config("umaze,smoke")
    with config.unlocked():
        config.rewards.preset = preset
    run, asked = experiment_build.build(config, ROOT), {}
    monkeypatch.setattr(evaluate, "guide", lambda eps, *_, **kw: asked.update(kw) or eps)
    init = run.model.init(jax.random.key(0))
    models = evaluate.Models(init, init, init, init)
    plans = evaluate.compile_measurements(run).steered_plans
    known = jnp.zeros((1, *run.model.shape))
    jax.eval_shape(lambda known: plans(models, (1.0, 0.0), known, 0), known)
    assert asked["scale_by_variance"] is (preset == "score")


def test_residual_rewards_are_of_whole_plans_and_in_nats():
    """In either experiment; another weight of the same units is taken."""
    for key, value in (("window", 8), ("preset", "paper")):
        config = maze2d.get_config("umaze,smoke")
        with config.unlocked():
            config.rewards.network = "residual"
            start(config)
            config.rewards[key] = value
        with pytest.raises(ValueError, match="window=0 and preset='score'"):
            start(config)


def test_the_network_of_an_expert_follows_the_bases_and_not_the_other_way():
    config = locomotion.get_config("hopper")
    config.model.width = 77
    assert config.expert_model.width == 77
    config.expert_model.width = 5
    assert config.model.width == 77
    with pytest.raises(ValueError, match=r"expert_model.width is not the base's"):
        locomotion_experiment.build(config, ROOT)
    config.expert.init = "scratch"
    run = locomotion_experiment.build(config, ROOT)
    assert run.denoiser.of_expert.network.net.width == 5
