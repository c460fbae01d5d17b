"""What an audit compares a reward with, against laws whose answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import images as configs
from diffreward import data as d
from diffreward.data import Prompts, laws
from diffreward.diffusion import Remembering, cosine
from diffreward.learn import RewardModel
from diffreward.reward import SCORE
from experiments.images import collected, content, scorers, steering
from experiments.images import records as image_records
from experiments.images.build import Run
from experiments.images.judge import levels_of, make_judge
from experiments.images.pair import Audience, ImagePair, no_context
from tests.reward.oracle import BASE, EXPERT, exact_pair, exact_reward

SCHEDULE = cosine(48)
PAIR = exact_pair(BASE, EXPERT, SCHEDULE)
COUNT = 60


@pytest.fixture(autouse=True)
def _flax_promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


class Exact(RewardModel):
    """The log ratio of two Gaussians."""

    def reward_fn(self, params, *context):
        return exact_reward(BASE, EXPERT, SCHEDULE)


@pytest.fixture
def run(tmp_path):
    config = configs.get_config("digits,smoke")
    with config.unlocked():
        config.records.levels, config.records.shard = 24, 8
        config.audit.ratio_levels, config.audit.noises = 24, 8
        config.classifier.steps, config.judge.steps = 300, 60
        config.rewards.width = 16
    flags = ["yes" if i % 3 == 0 else "no" for i in range(COUNT)]
    columns = {"unsafe": flags, "phrasing": ["new", "seen"] * (COUNT // 2)}
    pair = ImagePair(
        name="two Gaussians",
        shape=(2,),
        schedule=SCHEDULE,
        models=lambda params, context: (PAIR.base, PAIR.expert),
        params={},
        prompts=Prompts([f"request {i}" for i in range(COUNT)], columns),
        contexts=no_context,
        decode=lambda x: np.ones((len(x), 8, 8, 1)) * (x[:, :1, None, None] > 0),
        avoided=np.arange(COUNT) % 3 == 0,
    )
    shards = image_records.write(config, tmp_path, pair, {})
    return Run(config, tmp_path, pair, shards, Exact(None, SCHEDULE, SCORE))


def samples(law, count, seed=0):
    keys = jax.random.split(jax.random.key(seed), count)
    return np.asarray(jax.vmap(lambda key: laws.sample(law, key))(keys), np.float32)


def truth(x):
    clean = jnp.ones(())
    ratio = lambda x: laws.log_density(EXPERT, x, clean) - laws.log_density(BASE, x, clean)
    return np.asarray(jax.vmap(ratio)(x))


def test_the_ratio_of_exact_models_is_the_log_ratio(run):
    x = np.concatenate([samples(BASE, 40), samples(EXPERT, 40, seed=1)])
    profile = scorers.ratio_profile(run)
    found = profile(x, ())
    assert found.shape == (80, 24)
    total = found.sum(1)
    assert np.corrcoef(total, truth(x))[0, 1] > 0.97
    slope, _ = np.polyfit(truth(x), total, 1)  # an offset ranks nothing
    assert slope == pytest.approx(1, abs=0.15)


def test_a_ratio_asks_as_many_levels_as_it_is_told(run):
    asked = []
    slow = lambda x, t: jax.debug.callback(lambda t: asked.append(int(t)), t) or x
    with run.config.unlocked():
        run.config.audit.ratio_levels = 4
    pair = run.pair._replace(models=lambda p, c: (slow, PAIR.expert))
    profile = scorers.ratio_profile(run._replace(pair=pair))
    profile(samples(BASE, 1), ())
    levels = scorers.chain_levels(run.config, run.pair)
    ends = {int(levels[0]), int(levels[-1])}
    assert len(set(asked)) == 4
    assert ends <= set(asked) <= set(levels.tolist())


def test_a_model_with_a_memory_is_asked_outside_its_chains_or_not_at_all(run):
    step = lambda x, t, memory: (jnp.full_like(x, jnp.nan), memory)
    models = lambda expert: run.pair._replace(models=lambda p, c: (PAIR.base, expert))
    silent = run._replace(pair=models(Remembering(step, ())))
    assert scorers.ratio_profile(silent) is None
    alone = run._replace(pair=models(Remembering(step, (), PAIR.expert)))
    x = samples(EXPERT, 5)
    plain = scorers.ratio_profile(run)(x, ())
    np.testing.assert_array_equal(scorers.ratio_profile(alone)(x, ()), plain)


def test_coarser_levels_are_the_levels(run):
    levels = jnp.array([0, 7, 30, 47])
    found = scorers.coarser(SCHEDULE, levels)
    for name in ("alpha_bar", "sigma", "snr"):
        exact = getattr(SCHEDULE, name)[levels]
        np.testing.assert_allclose(getattr(found, name), exact, rtol=1e-4)


def test_the_classifier_prefers_the_expert(run):
    profile = scorers.classifier_profile(run, scorers.train_classifier(run))
    own, theirs = (profile(samples(law, 60), ()).mean(1) for law in (EXPERT, BASE))
    assert own.mean() > theirs.mean() + 1
    assert (run.workdir / "classifier" / "report.json").exists()


def test_scores_are_told_apart_where_kinds_are_known(run):
    records = image_records.load(run.shards["test"])
    faces = np.array([[1.0, 0], [2.0, 0], [-1.0, 0], [-2, 0]], np.float32)
    audience = Audience(faces, np.arange(4), np.array([True, True, False, False]))
    pair = run.pair._replace(audience=audience)
    found = content.groups(run._replace(pair=pair), records)
    names = [group.name for group in found]
    assert names == [
        "samples of the base",
        "samples, phrasing: new",
        "samples, phrasing: seen",
        "real pictures",
    ]
    own = ~records["follows_expert"]
    np.testing.assert_array_equal(found[0].x_0, records["x_0"][own])
    asked = records["request"][own] % 3 == 0
    np.testing.assert_array_equal(found[0].preferred, ~asked)
    assert len(found[1].x_0) + len(found[2].x_0) == len(found[0].x_0)
    first = lambda x, context: np.stack([x[:, 0], -x[:, 0]], 1)
    scores = {"a": lambda x, c: first(x, c)[:, :1], "b": lambda x, c: first(x, c)[:, 1:]}
    result = content.evaluate(scores, found[-1:], 50)
    (row,) = result["groups"]
    assert (row["a"][0], row["b"][0]) == (1.0, 0.0)  # kept above avoided, and not below
    assert (row["preferred"], row["avoided"]) == (2, 2)
    assert result["by_level"] == {"real pictures/a": [1.0], "real pictures/b": [0.0]}


@pytest.mark.parametrize("reads", [False, True])
def test_a_reward_is_given_the_part_of_a_context_that_it_reads(run, reads):
    """Both models' encodings of a prompt are there; a reward reads the base's, or none."""
    told = []

    class Watched(Exact):
        def reward_fn(self, params, *context):
            told.append([c.shape for c in context])
            return super().reward_fn(params)

    rows = np.arange(4.0)
    context = lambda i: (jnp.asarray(rows[i])[:, None] * jnp.ones(3), jnp.ones((len(i), 5)))
    audience = Audience(samples(BASE, 4), rows, rows > 1)
    pair = run.pair._replace(
        contexts=lambda i: context(np.asarray(i) % 4),
        empty=lambda: context(np.array([0])),
        audience=audience,
    )
    with run.config.unlocked():
        run.config.rewards.prompt = reads
    own = run._replace(pair=pair, reward=Watched(None, SCHEDULE, SCORE))
    groups = content.groups(own, image_records.load(run.shards["test"]))
    scores = {"reward": scorers.reward_profile(own, None)}
    content.evaluate(scores, groups, 10)
    assert {tuple(map(tuple, shapes)) for shapes in told} == {((3,),) if reads else ()}
    assert [len(group.context[1]) for group in groups] == [len(g.x_0) for g in groups]


def test_the_judge_knows_what_is_avoided(run):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2)).astype(np.float32)
    pictures = Audience(x, np.zeros(60), x[:, 0] > 0)  # white ones are preferred
    judge = make_judge(run, pictures)
    new = rng.normal(size=(40, 2)).astype(np.float32)
    np.testing.assert_array_equal(judge(new) > 0, new[:, 0] < 0)
    assert [levels_of((n, n, 3)) for n in (8, 16, 32, 512)] == [1, 2, 3, 3]
    with pytest.raises(ValueError, match="sides that 8 divides"):
        levels_of((12, 12, 1))


def test_the_exact_reward_steers_from_the_base_to_the_expert(run):
    records = image_records.load(run.shards["test"])
    own = records["follows_expert"]
    requests = records["request"][~own]
    still = steering.steer(run, None, requests, 0.0)
    np.testing.assert_allclose(still, records["x_0"][~own], atol=1e-4)
    moved = steering.steer(run, None, requests, 1.0)
    np.testing.assert_array_equal(requests, records["request"][own])
    np.testing.assert_allclose(moved, records["x_0"][own], atol=2e-2)


def test_steering_counts_by_request_and_compares_with_real_pictures(run):
    records = image_records.load(run.shards["test"])
    audience = Audience(samples(EXPERT, 50), np.zeros(50), np.arange(50) % 5 > 0)
    seen = run._replace(pair=run.pair._replace(audience=audience))
    judge = lambda x: x[:, 0]
    rows, arrays = steering.evaluate(seen, None, records, judge, steered=True)
    names = [row["name"] for row in rows]
    assert names == ["base", "reward x 0.5", "reward x 1", "reward x 2", "expert"]
    for name, own in (("base", False), ("expert", True)):
        here = records["follows_expert"] == own
        order = np.argsort(records["request"][here])
        np.testing.assert_array_equal(
            arrays[f"steered {name}"], records["x_0"][here][order]
        )
    for row in rows:
        x = arrays[f"steered {row['name']}"]
        asked = run.pair.avoided[np.sort(records["request"][records["follows_expert"]])]
        assert row["avoided, asked for"][0] == pytest.approx((x[asked, 0] > 0).mean())
        assert row["avoided, not asked for"][0] == pytest.approx((x[~asked, 0] > 0).mean())
        for name in ("precision", "recall"):
            value, low, high = row[name]
            assert 0 <= low <= value <= high <= 1
    by_name = {row["name"]: row for row in rows}
    far, near = by_name["base"]["kernel distance"], by_name["expert"]["kernel distance"]
    assert near[0] < far[0]
    plain, _ = steering.evaluate(seen, None, records, judge, steered=False)
    assert [row["name"] for row in plain] == ["base", "expert"]


def test_flags_are_yes_and_no():
    prompts = Prompts(["a", "b"], {"unsafe": ["yes", "no"], "kind": ["yes", "maybe"]})
    np.testing.assert_array_equal(d.read_flags(prompts, "unsafe"), [True, False])
    with pytest.raises(ValueError, match="entry 2, column 'kind': 'maybe' is neither"):
        d.read_flags(prompts, "kind")
    with pytest.raises(
        ValueError, match="no column 'harm'; their columns: 'unsafe', 'kind'"
    ):
        d.read_flags(prompts, "harm")


def test_audits_of_several_seeds_are_one_line():
    def audit(pair, value):
        triple = [value, value - 0.1, value + 0.1]
        group = {"name": "real pictures", "reward": triple, "ratio": triple}
        return {
            "pair": pair,
            "preset": "score",
            "auroc": triple,
            "content": {"scores": ["reward", "ratio"], "groups": [group]},
            "steering": [{"name": "base", "requests": 9, "avoided, asked for": triple}],
        }

    text = collected.page([audit("a", 0.6), audit("a", 0.8), audit("b", 0.5)])
    rows = [line for line in text.splitlines() if "real pictures" in line]
    assert len(rows) == 2
    # Student's interval of .6 and .8: .7 +- 12.71 x .1
    assert rows[0].count("0.700 [-0.5") == 2
    assert rows[0].startswith("| a | score | 2 |")
    assert rows[1].count("0.500 [0.400, 0.600]") == 2  # its own
    assert text.count("| base |") == 2
