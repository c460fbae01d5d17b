"""The image experiment: records, training from them, the audit, and what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from configs import images as configs
from diffreward import data as d
from diffreward import report
from diffreward.diffusion import cosine, from_eps, paired_chain
from diffreward.learn import RewardModel, record_task
from diffreward.networks import EnergyDenoiser, Flattened, InnerProductReward, TrajectoryMLP
from diffreward.reward import OBJECTIVES, SCORE, Pair, alignment_loss, fit_standards
from experiments.images import audit as image_audit
from experiments.images import build as image_build
from experiments.images import digits
from experiments.images import records as image_records
from experiments.images import run as images
from experiments.images.build import Run
from experiments.images.pair import (
    Audience,
    BaseEnergy,
    ImagePair,
    PairSource,
    no_context,
    numbered,
)
from tests.interop.tiny_pipeline import write_pipeline
from tests.reward.oracle import BASE, EXPERT, exact_pair, exact_reward

SCHEDULE = cosine(12)
PAIR = exact_pair(BASE, EXPERT, SCHEDULE)


@pytest.fixture(autouse=True)
def _flax_promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def config():
    config = configs.get_config("digits,smoke")
    with config.unlocked():
        config.records.levels, config.records.shard, config.records.batch_size = 12, 8, 4
    return config


@pytest.fixture
def gaussians():
    """A pair whose reward is known, as if its samples were latents."""
    return ImagePair(
        name="two Gaussians",
        shape=(2,),
        schedule=SCHEDULE,
        models=lambda params, context: (PAIR.base, PAIR.expert),
        params={},
        prompts=numbered(30),
        contexts=no_context,
        decode=lambda x: np.zeros((len(x), 2, 2, 1)),
    )


def test_records_are_the_chains_of_their_requests(config, gaussians, tmp_path):
    shards = image_records.write(config, tmp_path, gaussians, {})
    parts = image_records.split(config, gaussians)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(30))
    for name, index in parts.items():
        records = image_records.load(shards[name])
        assert sorted(records["request"]) == sorted([*index, *index])
        for i in (0, len(index) - 1, -1):
            chain = paired_chain(
                PAIR.base,
                PAIR.expert,
                SCHEDULE,
                jax.random.fold_in(jax.random.key(0), int(records["request"][i])),
                (2,),
                follow_expert=bool(records["follows_expert"][i]),
                num_evaluations=12,
            )
            close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
            close(records["x_t"][i], chain.x_t)
            close(records["base"][i], chain.base)
            close(records["difference"][i], chain.expert - chain.base)
            close(records["x_0"][i], chain.x_0)
        np.testing.assert_array_equal(records["t"], chain.t)


def test_records_do_not_depend_on_how_many_devices_share_a_batch(
    config, gaussians, tmp_path
):
    assert jax.device_count() == 8
    found = []
    for i, size in enumerate((1, 8)):
        with config.unlocked():
            config.records.batch_size = size
        shards = image_records.write(config, tmp_path / str(i), gaussians, {})
        found.append(image_records.load(shards["train"]))
    for name in found[0]:
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-5, atol=1e-5)


def test_records_do_not_depend_on_where_the_parameters_lie(config, gaussians, tmp_path):
    weights = {"kernel": jnp.eye(16)[:, :2], "bias": jnp.ones(3)}

    def models(params, context):
        # The kernel has orthonormal columns: x K^T K = x, computed from the cut array.
        through = lambda eps: (
            lambda x, t: eps(params["kernel"].T @ (params["kernel"] @ x), t)
        )
        return through(PAIR.base), through(PAIR.expert)

    pair = gaussians._replace(models=models, params=weights)
    found = []
    for cut in (False, True):
        with config.unlocked():
            config.records.batch_size, config.records.cut_parameters = 8, cut
        shards = image_records.write(config, tmp_path / str(cut), pair, {})
        found.append(image_records.load(shards["train"]))
    for name in found[0]:
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-5, atol=1e-5)


def test_records_that_were_interrupted_are_finished(config, gaussians, tmp_path):
    whole = image_records.write(config, tmp_path / "a", gaussians, {})
    broken = image_records.write(config, tmp_path / "b", gaussians, {})
    (tmp_path / "b" / "records" / "report.json").unlink()
    broken["train"].path(1).unlink()
    again = image_records.write(config, tmp_path / "b", gaussians, {})
    for name, shards in again.items():
        ours, theirs = image_records.load(shards), image_records.load(whole[name])
        assert {k: v.tobytes() for k, v in ours.items()} == {
            k: v.tobytes() for k, v in theirs.items()
        }


def test_alignment_on_records_is_alignment_with_the_models(
    config, gaussians, tmp_path, key
):
    shards = image_records.write(config, tmp_path, gaussians, {})
    records = image_records.load(shards["train"])
    net = InnerProductReward(Flattened(TrajectoryMLP(16, 1)))
    for objective in OBJECTIVES.values():
        reward = RewardModel(net, SCHEDULE, objective)
        task = record_task(reward, (2,), 64)
        params = task.init(key)
        batch = task.draw(image_records.rows(gaussians, records, False), key)

        def one(x_t, t, objective=objective, reward=reward, params=params):
            part = objective.align(Pair(PAIR.base, PAIR.expert, SCHEDULE), x_t, t)
            rho = reward.reward_fn(params)
            return alignment_loss(rho, part.point, t, part.target, weight=part.weight)[0]

        expected = jax.vmap(one)(batch.x_t, batch.t).mean()
        found, _ = task.loss(params, None, key, batch)
        np.testing.assert_allclose(found, expected, rtol=2e-2)


def test_the_published_loss_is_of_latents_standardised_on_training_requests(
    config, gaussians, tmp_path, key
):
    with config.unlocked():
        config.rewards.preset = "paper"
    shards = image_records.write(config, tmp_path, gaussians, {})
    records = image_records.load(shards["train"])
    reward = image_build.build_reward(config, tmp_path, gaussians, shards["train"])
    parts = [
        image_records.recorded(shards["train"], i) for i in range(shards["train"].count)
    ]
    s = fit_standards(SCHEDULE, records["t"], parts)
    for ours, expected in zip(reward.standards, s, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)

    task = record_task(reward, (2,), 64)
    params = task.init(key)
    batch = task.draw(image_records.rows(gaussians, records, False), key)
    value, _ = task.loss(params, None, key, batch)
    levels, losses = list(records["t"]), []
    for x_t, t, difference in zip(batch.x_t, batch.t, batch.difference, strict=True):
        j = levels.index(t)
        x = (x_t - s.mean[j]) / s.deviation[j]
        left = jnp.int32(len(levels) - 1 - j)
        gradient = jax.grad(lambda x, i: reward.network.apply(params, x, i))(x, left)
        target = s.step[j] * difference / s.deviation[j + 1]
        losses.append(np.mean(np.square(gradient - target)))
    np.testing.assert_allclose(value, np.mean(losses), rtol=1e-4)


def test_the_exact_reward_passes_the_audit_and_its_negative_does_not(
    config, gaussians, tmp_path
):
    shards = image_records.write(config, tmp_path, gaussians, {})
    exact = exact_reward(BASE, EXPERT, SCHEDULE)

    class Exact(RewardModel):
        def reward_fn(self, params, *context):
            return lambda x, t: params * exact(x, t)

    run = Run(config, tmp_path, gaussians, shards, Exact(None, SCHEDULE, SCORE))
    found, rivals = {}, image_audit.train_rivals(run)
    for sign in (1.0, -1.0):
        found[sign], arrays = image_audit.evaluate(run, jnp.array(sign), rivals)
    assert np.max(found[1.0]["fvu"]) < 0.01
    assert np.min(found[-1.0]["fvu"]) > 3  # |-g - g|^2 / |g|^2 = 4
    assert found[1.0]["auroc"][0] > 0.7
    assert found[1.0]["auroc"][0] == pytest.approx(1 - found[-1.0]["auroc"][0])
    assert found[1.0]["expert"]["mean"] > found[1.0]["base"]["mean"]
    assert len(arrays["rewards"]) == 2 * found[1.0]["requests"]


def test_a_moving_selection_of_shards_is_a_function_of_the_step(
    config, gaussians, tmp_path
):
    with config.unlocked():
        config.records.resident, config.records.refresh = 1, 10
        config.records.shard = 6
    shards = image_records.write(config, tmp_path, gaussians, {})["train"]
    assert shards.count == 3
    feed = image_records.feed(config, gaussians, shards)
    assert feed(0) is feed(9)
    seen = {feed(step)["x_t"].tobytes() for step in range(0, 200, 10)}
    assert len(seen) == 2  # the last, smaller shard is never drawn
    again = image_records.feed(config, gaussians, shards)
    np.testing.assert_array_equal(again(70)["x_t"], feed(70)["x_t"])


def test_nearest_samples_are_found_across_shards(tmp_path):
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(12, 2, 3)).astype(np.float32)
    shards = d.write_shards(tmp_path, 3, lambda i: {"x_0": seen[4 * i : 4 * i + 4]})
    x = seen[[9, 2]] + 0.01
    found = image_audit.nearest_training(x, shards)
    np.testing.assert_array_equal(found["sample"], seen[[9, 2]])
    np.testing.assert_allclose(found["distance"], 0.01, rtol=1e-2)
    gaps = np.sqrt(((seen[:4, None] - seen[None]) ** 2).mean((2, 3)))
    gaps[np.arange(4), np.arange(4)] = np.inf
    np.testing.assert_allclose(found["typical"], gaps.min(1), rtol=1e-4)


def test_the_aligned_model_sees_what_it_is_told():
    images_ = d.LabelledImages(np.zeros((4000, 8, 8, 1)), np.arange(4000) % 10)
    config = configs.get_config("digits")
    assert set(digits.keep(config, images_).labels) == {1, 2, 3, 4, 5, 7, 9}
    with config.unlocked():
        config.digits.kept_share = 0.25
    kept = digits.keep(config, images_).labels
    counts = np.bincount(kept, minlength=10)
    assert np.all(counts[[1, 2, 3, 4, 5, 7, 9]] == 400)
    assert np.all((counts[[0, 6, 8]] > 60) & (counts[[0, 6, 8]] < 140))


@pytest.mark.parametrize(
    ("task", "key", "value", "message"),
    [
        ("digits", "digits.removed", (), "must be some, not all"),
        ("digits", "digits.removed", tuple(range(10)), "must be some, not all"),
        ("digits", "digits.kept_share", 1.0, r"must be in \[0, 1\)"),
        ("digits", "rewards.network", "innr", "did you mean 'inner'"),
        ("sd", "rewards.network", "residual", "which only task 'digits' knows"),
        ("digits", "rewards.prompt", True, "needs models with prompts"),
        ("digits", "records.levels", 0, "records.levels is 0; use 1 or more"),
        ("digits", "records.dtype", "float8", "unknown records.dtype"),
        ("sd", "sd.folder", "", "sd.folder is not set; add --config.sd.folder=PATH"),
        ("sd", "sd.folder", "/no/where", "sd.folder: /no/where does not exist"),
        ("sd", "sd.pair", "lora", "sd.folder is not set"),
        ("sd", "sd.safety", "maxx", "did you mean 'max'"),
        ("sd", "sd.pair", "safety", "unknown sd.pair"),
    ],
)
def test_wrong_values_are_refused_before_any_work(tmp_path, task, key, value, message):
    config = configs.get_config(f"{task},smoke")
    with config.unlocked():
        config.update_from_flattened_dict({key: value})
    with pytest.raises(ValueError, match=message):
        images.main(config, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_pair_a_network_and_an_objective_of_ones_own_are_an_entry_each(
    config, gaussians, tmp_path, monkeypatch
):
    """From the check to the page, with no line changed in the experiment."""
    rng = np.random.default_rng(0)
    good = np.arange(8) % 2 == 0
    faces = np.where(good[:, None], [-1.5, 0.5], [1.0, -2.0]) + rng.normal(0, 0.1, (8, 2))
    audience = Audience(faces.astype(np.float32), np.where(good, "new", "old"), good)
    own = gaussians._replace(audience=audience)

    def refuse(config):
        if config.seed == 13:
            raise ValueError("no pair of Gaussians has the seed 13")

    def make_pair(config, workdir):
        if not report.open_stage(workdir / "laws", {"seed": config.seed}):
            report.close_stage(workdir / "laws", {})
        return own

    source = PairSource(refuse, make_pair, stages=("laws",))
    double = SCORE._replace(name="double", scale=lambda s, t: 2 * SCORE.scale(s, t))
    linear = lambda c, pair: InnerProductReward(Flattened(TrajectoryMLP(c.width, 1)))
    network = image_build.RewardNetwork(linear)
    monkeypatch.setitem(image_build.PAIRS, "gaussians", source)
    monkeypatch.setitem(image_build.NETWORKS, "linear", network)
    monkeypatch.setitem(OBJECTIVES, "double", double)
    with config.unlocked():
        config.task, config.rewards.network, config.rewards.preset = (
            "gaussians",
            "linear",
            "double",
        )
        config.rewards.steps = config.rewards.steps_per_dispatch = 100
        config.rewards.learning_rate = 1e-2
        config.seed = 13
    with pytest.raises(ValueError, match="no pair of Gaussians has the seed 13"):
        images.main(config, tmp_path)
    assert not list(tmp_path.iterdir())
    with config.unlocked():
        config.seed = 0
    result = images.main(config, tmp_path)
    assert result["audience"]["auroc"][0] == 1.0
    assert np.mean(result["fvu"]) < 0.2
    assert "In units of its own" in (tmp_path / "report.md").read_text()
    inputs = report.read_json(tmp_path / "records" / "inputs.json")
    assert inputs == {"laws": report.stage_digest(tmp_path / "laws")}


def test_a_reward_that_starts_at_the_base_reads_whole_samples_in_nats(config, tmp_path):
    with config.unlocked():
        config.rewards.network, config.rewards.preset = "residual", "paper"
    with pytest.raises(ValueError, match="use it with window=0 and preset='score'"):
        images.main(config, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("own", [False, True], ids=["distilled", "own"])
def test_a_reward_starts_at_the_energy_of_the_base(config, gaussians, tmp_path, own):
    """Records of the base become its energy, unless it has one; then it is held."""
    net = Flattened(TrajectoryMLP(32, 1))
    energy = EnergyDenoiser(net).init(jax.random.key(7), jnp.zeros(2), jnp.int32(0))
    pair = gaussians._replace(energy=BaseEnergy(net, energy if own else None))
    with config.unlocked():
        config.rewards.network = "residual"
        for section in (config.start, config.rewards):
            section.steps, section.learning_rate = 400, 1e-2
    (tmp_path / "records").mkdir()
    shards = image_records.write(config, tmp_path, pair, {})
    reward = image_build.build_reward(config, tmp_path, pair, shards["train"])
    run = Run(config, tmp_path, pair, shards, reward)
    params = images.train_reward(run)
    assert (tmp_path / "start").exists() != own
    start = energy if own else images.energy_of_base(run)[0]
    for left, right in zip(*map(jax.tree.leaves, (params["start"], start)), strict=True):
        np.testing.assert_array_equal(left, right)
    x, t = jnp.array([0.5, -1.0]), jnp.int32(6)
    if not own:
        found = EnergyDenoiser(net).apply(start, x, t)
        wanted = from_eps(SCHEDULE, "x_0", x, t, PAIR.base(x, t))
        np.testing.assert_allclose(found, wanted, atol=0.15)
    test = image_records.load(shards["test"])
    assert np.mean(image_audit.held_out_fvu(run, params, test)) < 0.1
    inputs = report.read_json(tmp_path / "rewards" / "inputs.json")
    assert ("start" in inputs) != own


def test_digits_from_training_to_the_page(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    config = configs.get_config("digits,smoke")
    result = images.main(config, tmp_path)
    assert result["audience"]["auroc"][0] > 0.8
    by_class = result["audience"]["by_class"]
    assert [c for c, v in by_class.items() if not v["preferred"]] == ["0", "6", "8"]
    page = (tmp_path / "report.md").read_text()
    assert f"**{result['audience']['auroc'][0]:.3f} [" in page
    for name in ("rewards", "levels", "samples", "held_out"):
        assert f"(figures/{name}.png)" in page
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 3000
    # Finished stages are read back: nothing is trained or measured again.
    monkeypatch.setattr(image_audit, "evaluate", None)
    monkeypatch.setattr(image_records, "make_chains", None)
    assert images.main(config, tmp_path) == result


@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["safe", "guidance", "folders", "lora"])
def test_a_tiny_stable_diffusion_from_folder_to_page(tmp_path, kind):
    pytest.importorskip("tokenizers")
    folder = tmp_path / "sd"
    write_pipeline(folder)
    rows = [
        {"prompt": f"a photograph of {i}", "kind": "ab"[i % 2], "n": str(i)}
        for i in range(12)
    ]
    (tmp_path / "prompts.json").write_text(json.dumps(rows))
    config = configs.get_config("sd,smoke")
    with config.unlocked():
        config.sd.folder, config.sd.pair = str(folder), kind
        config.rewards.preset = "paper" if kind == "guidance" else "score"
        config.sd.prompts = str(tmp_path / "prompts.json")
        config.rewards.steps, config.rewards.prompt = 20, kind == "safe"
        config.records.levels, config.records.batch_size = 4, 4
        if kind == "folders":
            other = tmp_path / "other"
            write_pipeline(other, act="gelu")
            config.sd.expert_folder = str(other)
        if kind == "lora":
            name = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_"
            config.sd.lora = str(tmp_path / "style.safetensors")
            ones = {
                f"{name}{k}.weight": np.ones(s, np.float32)
                for k, s in {"A": (2, 32), "B": (32, 2)}.items()
            }
            save_file(ones, config.sd.lora)
    result = images.main(config, tmp_path / "run")
    assert {r["column"] for r in result["slices"]} == {"kind"}
    page = (tmp_path / "run" / "report.md").read_text()
    assert "## By kind of request" in page
    assert np.isfinite(result["fvu"]).all()
