"""A text-to-image model in miniature: its data, its words, and the folder it becomes."""

import csv
import gzip
import io
import json
import pickle
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import images as configs
from diffreward.data import Prompts
from diffreward.diffusion import SAFETY_PRESETS, ddim_levels, draw_noise, paired_chain
from diffreward.files import read_text
from diffreward.interop.latent import Part
from diffreward.interop.numpy_pickle import read_pickle
from diffreward.interop.save_pipeline import Pipeline, save_pipeline
from diffreward.interop.stable_diffusion import load_stable_diffusion
from diffreward.interop.tokenizer import load_tokenizer
from experiments.images import animals, miniature, run, scenes, stable_diffusion
from experiments.images import plan as planning
from experiments.images.build import check, with_steps
from experiments.images.stable_diffusion import read_audience
from experiments.images.vocabulary import learn_vocabulary
from tests.networks.reference import random_params


@pytest.fixture(autouse=True)
def _flax_promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def silhouettes(each=12):
    """Ten kinds of bars, each kind of a height of its own."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), each)
    pictures = np.zeros((len(labels), 28, 28), np.uint8)
    for i, k in enumerate(labels):
        pictures[i, 2 : 5 + 2 * k, 4:24] = 200
        pictures[i, 27, rng.integers(28, size=5)] = 1 + i % 255
    return pictures, labels


def package(folder, pictures, labels):
    """The files of animal-mnist, as that package has them."""
    own = folder / "animal_mnist" / "data" / "Animal_MNIST"
    own.mkdir(parents=True)
    for name, array in zip(animals.FILES, (pictures, labels), strict=True):
        (own / name).write_bytes(gzip.compress(pickle.dumps(array, 4)))
    (folder / "animal_mnist" / "__init__.py").write_text("raise SystemExit('imported')\n")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    def install(pictures, labels):
        package(tmp_path / "site", pictures, labels)
        monkeypatch.syspath_prepend(str(tmp_path / "site"))

    return install


def test_every_silhouette_is_there_once_and_the_package_is_not_imported(installed):
    pictures, labels = silhouettes()
    installed(
        np.concatenate([pictures, pictures[:7]]), np.concatenate([labels, labels[:7]])
    )
    found = animals.load_animals()
    np.testing.assert_array_equal(found.pictures, pictures)
    np.testing.assert_array_equal(found.labels, labels)


@pytest.mark.parametrize("change", ["float", "side", "labels", "count"])
def test_other_arrays_are_refused(change, installed):
    pictures, labels = silhouettes()
    changed = {
        "float": (pictures / 2, labels),
        "side": (pictures[:, :20], labels),
        "labels": (pictures, labels % 9),
        "count": (pictures[1:], labels),
    }
    installed(*changed[change])
    with pytest.raises(ValueError, match=r"other arrays than those of animal-mnist"):
        animals.load_animals()


def test_pickles_run_nothing(tmp_path):
    class Caller:
        def __reduce__(self):
            return print, ("run",)

    for content in (Caller(), {"a": np.float32}, {"a": complex(1, 2)}):
        path = tmp_path / "x.pkl"
        path.write_bytes(pickle.dumps(content, 4))
        with pytest.raises(ValueError, match=r"x\.pkl wants to run"):
            read_pickle(path)
    path.write_bytes(pickle.dumps({"a": np.arange(3), "b": "text"}, 4))
    found = read_pickle(path)
    assert found["b"] == "text"
    np.testing.assert_array_equal(found["a"], np.arange(3))


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(animals, "PACKAGE", "no_such_animals")
    with pytest.raises(ValueError, match="pip install --no-deps animal-mnist"):
        animals.load_animals()


def test_a_picture_shows_what_its_scene_says():
    pictures, labels = silhouettes()
    own = pictures[labels == 9]
    rng = np.random.default_rng(1)
    centre = lambda x: (x.sum((0, 2)) @ np.arange(scenes.SIDE)) / x.sum()
    for place, column in scenes.PLACES.items():
        scene = scenes.Scene(9, "red", "small", place, False)
        x = scenes.picture(rng, scene, own).astype(float)
        assert abs(centre(x) - column) < 4
        assert x[..., 0].sum() > 3 * x[..., 1].sum()  # red
    large = scenes.Scene(9, "white", "large", "in the middle", False)
    small = large._replace(size="small")
    area = lambda s: (scenes.picture(rng, s, own) > 0).any(-1).sum()
    assert area(large) > 2 * area(small)
    two = scenes.picture(rng, small._replace(two=True), own)
    assert (two[:, :12] > 0).any()
    assert (two[:, 20:] > 0).any()
    assert not (two[:, 15:17] > 0).any()


def test_captions_name_the_animal_and_nothing_that_is_not_there():
    rng = np.random.default_rng(2)
    seen, new = set(), set()
    for _ in range(400):
        scene = scenes.draw_scene(rng, int(rng.integers(10)))
        name = animals.NAMES[scene.animal]
        for held_out, texts in ((False, seen), (True, new)):
            words = scenes.caption(rng, scene, held_out)
            texts.add(words)
            assert name in words
            others = {*scenes.COLOURS, *scenes.SIZES, "left", "right"}
            others -= {scene.colour, scene.size, scene.place.rpartition(" ")[2]}
            assert not others & set(words.replace(",", "").split())
            assert ("two" in words) <= scene.two
            assert "  " not in words
            assert not words.endswith((",", "and"))
            assert "a elephant" not in words
    assert not seen & new


def seen_by_split(monkeypatch, config, folder):
    """Silhouettes that the scenes of every split are drawn from."""
    drawn = []

    def draw(own, count, seed):
        drawn.append({x.tobytes() for x in own.pictures})
        return scenes.draw_scenes(own, count, seed)

    monkeypatch.setattr(miniature, "draw_scenes", draw)
    miniature.make_scenes(config, folder)
    return drawn


def test_splits_share_no_silhouette(installed, tmp_path, monkeypatch):
    installed(*silhouettes(100))
    config = configs.get_config("miniature,smoke")
    found = miniature.make_scenes(config, tmp_path / "run")
    assert [len(found[n].captions) for n in ("train", "val", "test")] == [200, 40, 40]
    again = miniature.make_scenes(config, tmp_path / "run")
    np.testing.assert_array_equal(found["test"].pictures, again["test"].pictures)
    assert found["train"].captions == again["train"].captions
    assert np.bincount(found["train"].animals).tolist() == [20] * 10
    drawn = seen_by_split(monkeypatch, config, tmp_path / "other")
    assert sum(map(len, drawn)) == len(set().union(*drawn)) > 300


def test_any_text_has_identifiers(tmp_path):
    pytest.importorskip("tokenizers")
    texts = ["a small white bear on the left", "two red bears"] * 5
    vocabulary, merges = learn_vocabulary(texts, 560)
    assert (vocabulary, merges) == learn_vocabulary(texts, 560)
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert len(vocabulary) <= 560
    assert "bear</w>" in vocabulary
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    tokenise = load_tokenizer(tmp_path, 8, 560)
    ids = tokenise(["A small  white BEAR"])[0]
    names = {i: piece for piece, i in vocabulary.items()}
    read = [names[i] for i in ids[1:5]]
    assert read == ["a</w>", "small</w>", "white</w>", "bear</w>"]
    end = vocabulary["<|endoftext|>"]
    strange = tokenise(["zq\u00fc 7!"])[0]
    assert end not in strange[1:6]
    with pytest.raises(ValueError, match="have no room for all bytes"):
        learn_vocabulary(texts, 300)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder of random parameters, and what they are."""
    pytest.importorskip("tokenizers")
    config = configs.get_config("miniature,smoke")
    models = miniature.build(config)
    m, z = config.miniature, jnp.zeros(models.latent)
    words = jnp.zeros((m.tokens, m.text_width))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        params = {
            "text": random_params(models.text, jnp.zeros(m.tokens, int)),
            "unet": random_params(models.unet, z, jnp.int32(0), words),
            "encoder": random_params(models.encoder, jnp.zeros((32, 32, 3))),
            "decoder": random_params(models.decoder, z),
        }
    vocabulary, merges = learn_vocabulary(["a bear", "a cat"], m.words)
    folder = tmp_path_factory.mktemp("miniature") / "pipeline"
    pipeline = Pipeline(
        *(
            Part(getattr(models, n), params[n])
            for n in ("text", "unet", "encoder", "decoder")
        ),
        vocabulary,
        merges,
        0.7,
        models.side,
        miniature.SCHEDULER,
        concept="a bear",
    )
    save_pipeline(folder, pipeline)
    return folder, models, params, pipeline


def test_what_is_written_is_read_as_it_was(written):
    folder, models, params, pipeline = written
    found = load_stable_diffusion(folder)
    parts = (found.text_encoder, found.unet, found.encoder, found.decoder)
    for part, name in zip(parts, ("text", "unet", "encoder", "decoder"), strict=True):
        assert part.network == getattr(models, name)
        jax.tree.map(np.testing.assert_array_equal, part.params, params[name])
    assert (found.concept, found.scaling_factor) == ("a bear", 0.7)
    assert found.latent_shape == models.latent
    assert found.prediction == "eps"
    alpha_bar = models.schedule.alpha_bar
    np.testing.assert_allclose(found.schedule.alpha_bar, alpha_bar, rtol=1e-5)
    with pytest.raises(FileExistsError):
        save_pipeline(folder, pipeline)
    save_pipeline(folder, pipeline._replace(concept=""), replace=True)
    assert load_stable_diffusion(folder).concept == ""
    save_pipeline(folder, pipeline, replace=True)


def test_pictures_beside_the_prompts_become_latents(written, tmp_path):
    folder, models, params, _ = written
    model = load_stable_diffusion(folder)
    rng = np.random.default_rng(0)
    pictures = rng.integers(256, size=(10, 32, 32, 3)).astype(np.uint8)
    good = np.arange(10) % 3 > 0
    path = tmp_path / "pictures.npz"
    np.savez(path, pictures=pictures, labels=np.arange(10), preferred=good)
    found = read_audience(path, model)
    one = pictures[9].astype(np.float32) / 127.5 - 1
    mean, _ = models.encoder.apply(params["encoder"], jnp.asarray(one))
    np.testing.assert_allclose(found.images[9], 0.7 * mean, atol=1e-4)
    np.testing.assert_array_equal(found.preferred, good)
    for wrong, message in (
        ({"pictures": pictures[:, :16]}, "need bytes shaped"),
        ({"pictures": pictures / 255}, "need bytes shaped"),
        ({"preferred": good.astype(int)}, "preferred must be true for some"),
        ({"preferred": np.ones(10, bool)}, "preferred must be true for some"),
    ):
        arrays = {"pictures": pictures, "labels": np.arange(10), "preferred": good}
        np.savez(path, **(arrays | wrong))
        with pytest.raises(ValueError, match=message):
            read_audience(path, model)
    np.savez(path, pictures=pictures)
    with pytest.raises(ValueError, match="lacks the array labels"):
        read_audience(path, model)


WRONG = {
    "unsafe": ("snake", "unknown miniature.unsafe 'snake'"),
    "vae_widths": ((12,), "is no multiple of 8"),
    "heads": (5, "does not divide into heads=5"),
    "words": (500, r"miniature\.words is 500"),
    "rank": (0, r"miniature\.rank is 0"),
    "tokens": (2, r"miniature\.tokens is 2"),
    "dropout": (1.5, r"miniature\.dropout is 1\.5"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_refused_before_anything_is_written(name, tmp_path):
    value, message = WRONG[name]
    config = configs.get_config("miniature,smoke")
    with config.unlocked():
        config.miniature[name] = value
    with pytest.raises(ValueError, match=message):
        run.main(config, tmp_path)
    assert not list(tmp_path.iterdir())


def test_prompts_are_half_unsafe_and_half_new():
    config = configs.get_config("miniature,smoke")
    rows = list(csv.DictReader(io.StringIO(miniature.prompts(config))))
    assert len(rows) == config.miniature.prompts
    unsafe = [row["unsafe"] == "yes" for row in rows]
    assert sum(unsafe) == len(rows) // 2
    assert all(("bear" in row["prompt"]) == bad for row, bad in zip(rows, unsafe))  # noqa: B905
    assert {row["phrasing"] for row in rows} == {"seen", "new"}


def test_captions_of_the_unsafe_animal_get_other_pictures():
    config = configs.get_config("miniature,smoke")
    kinds = np.arange(40) % 10
    rows = {
        "mean": np.arange(40.0)[:, None],
        "deviation": -np.arange(40.0)[:, None],
        "ids": np.arange(40)[:, None],
    }
    found = miniature.without(config, rows, kinds, 0)
    bears = kinds == animals.NAMES.index("bear")
    shown = found["mean"][:, 0].astype(int)
    assert not bears[shown].any()
    np.testing.assert_array_equal(shown[~bears], np.flatnonzero(~bears))
    np.testing.assert_array_equal(found["deviation"], -found["mean"])
    np.testing.assert_array_equal(found["ids"], rows["ids"])


@pytest.mark.slow
def test_a_model_is_trained_and_audited(installed, tmp_path):
    pytest.importorskip("tokenizers")
    installed(*silhouettes(100))
    config = configs.get_config("miniature,smoke")
    folder = tmp_path / "miniature"
    result = run.main(config, folder)
    assert result["unsafe"] == "bear"
    for name in ("samples", "autoencoder"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 5000
    assert "bear" in read_text(folder / "report.md")
    again = run.main(config, folder)
    assert again == result

    audit = configs.get_config("sd,smoke")
    with audit.unlocked():
        audit.sd.folder = str(folder / "pipeline")
        audit.sd.prompts = str(folder / "prompts.csv")
        audit.records.levels = 4
    found = run.main(audit, tmp_path / "sd")
    plain, tuned = (
        load_stable_diffusion(folder / n) for n in ("pipeline", "pipeline-aligned")
    )
    file = folder / "lora.safetensors"
    adapted = load_stable_diffusion(folder / "pipeline", lora=file)
    leaves = lambda model: np.concatenate(
        [np.ravel(x) for x in jax.tree.leaves(model.unet.params)]
    )
    for other in (tuned, adapted):
        assert 0 < np.abs(leaves(other) - leaves(plain)).max() < 0.1
    assert found["audience"]["images"] == config.miniature.held_out
    assert {row["column"] for row in found["slices"]} >= {"category", "unsafe", "phrasing"}


@pytest.mark.parity
def test_the_folder_is_what_diffusers_reads(written):
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    folder, models, params, _ = written
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    ours = load_stable_diffusion(folder)
    prompts = ["a bear", "two cats, on the left", ""]
    ids = ours.tokenise(prompts)
    most = pipe.tokenizer.model_max_length
    told = pipe.tokenizer(prompts, padding="max_length", max_length=most, truncation=True)
    np.testing.assert_array_equal(ids, told["input_ids"])
    side, rng = models.side, np.random.default_rng(0)
    z = rng.normal(size=(3, 4, side, side)).astype(np.float32)
    t = np.array([0, 400, 999])
    last = lambda x: jnp.asarray(np.asarray(x).transpose(0, 2, 3, 1))
    with torch.no_grad():
        text = pipe.text_encoder(torch.tensor(ids).long()).last_hidden_state
        noise = pipe.unet(torch.tensor(z), torch.tensor(t), text).sample
        picture = pipe.vae.decode(torch.tensor(z)).sample
        latent = pipe.vae.encode(picture).latent_dist.mean
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4)
    words = jax.vmap(lambda row: models.text.apply(params["text"], row))(jnp.asarray(ids))
    close(words, text.numpy())
    unet = jax.vmap(lambda *row: models.unet.apply(params["unet"], *row))
    close(unet(last(z), jnp.asarray(t), words), last(noise))
    decode = jax.vmap(lambda x: models.decoder.apply(params["decoder"], x))
    close(decode(last(z)), last(picture))
    encode = jax.vmap(lambda x: models.encoder.apply(params["encoder"], x)[0])
    close(encode(last(picture)), last(latent))


def test_an_audit_is_planned_without_reading_weights(
    written, tmp_path, monkeypatch, capsys
):
    folder = written[0]
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("prompt\n" + "a bear\n" * 30)
    config = configs.get_config("sd")
    with config.unlocked():
        config.sd.folder, config.sd.prompts = str(folder), str(prompts)
        config.records.levels, config.rewards.steps = 10, 100
    place = tmp_path / "not" / "yet"
    planning.plan(config, place)
    said = capsys.readouterr().out
    assert "30 prompts, latents 16 x 16 x 4" in said
    assert f"{2 * 30 * 10 * 3:,} passes of a U-Net" in said
    assert f"100 steps of 64, {100 * 64 / (2 * 18 * 10):.1f} times" in said
    weights = sum(p.stat().st_size for p in folder.rglob("*.safetensors"))
    assert sum(planning.weights_bytes(folder / p) for p in planning.PARTS) == weights
    assert not place.parent.exists()
    # The text encoder, the U-Net and both halves of the autoencoder, in float32.
    numbers = sum(x.size for x in jax.tree.leaves(written[2]))
    assert sum(planning.count_numbers(folder / p) for p in planning.PARTS) == numbers
    for there, fits in ((1.4 * 4 * numbers, True), (1.2 * 4 * numbers, False)):
        monkeypatch.setattr(planning, "memory_bytes", lambda there=there: int(there))
        if fits:
            planning.plan(config, place)
            continue
        with pytest.raises(ValueError, match="of memory, .* use sd.dtype=bfloat16"):
            planning.plan(config, place)
    monkeypatch.undo()
    # Three arrays in half precision, and the clean latents in single.
    needed = 2 * 30 * (16 * 16 * 4) * (10 * 3 * 2 + 4)
    for free, fits in ((needed, True), (needed - 1, False)):
        monkeypatch.setattr(planning, "free_bytes", lambda _, free=free: free)
        if fits:
            planning.plan(config, place)
            continue
        with pytest.raises(ValueError, match="are free at .*; choose another --workdir"):
            planning.plan(config, place)
    with config.unlocked():
        config.sd.prompts = str(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"none\.csv does not exist"):
        planning.plan(config, place)


@pytest.mark.parametrize("kind", ["safe", "guidance", "folders"])
def test_what_both_models_ask_of_one_network_is_asked_once(written, kind):
    """By the operations of the compiled program, in passes of the U-Net."""
    model = load_stable_diffusion(written[0])
    config = configs.get_config("sd,smoke")
    with config.unlocked():
        config.sd.pair = kind
    pair = stable_diffusion.build(config.sd, model, model, Prompts(["a bear"], {}))
    row = jax.tree.map(lambda c: c[0], pair.contexts([0]))

    def both(params, x, t):
        base, expert = pair.models(params, row)
        if kind == "safe":
            return base(x, t), expert.step(x, t, expert.memory)[0]
        return base(x, t), expert(x, t)

    def one(params, x, t):
        return model.unet.network.apply(params["base"], x, t, row[0])

    asked = (pair.params, jnp.ones(pair.shape), jnp.int32(3))
    count = lambda f: jax.jit(f).lower(*asked).compile().cost_analysis()["flops"]
    passes = count(both) / count(one)
    assert passes == pytest.approx(planning.PASSES[kind], rel=0.1)


def test_epochs_become_steps_by_the_states_that_were_recorded():
    config = configs.get_config("sd")
    assert config.rewards.steps == 0
    found = with_steps(config, 4703).rewards.steps
    assert found == round(20 * 0.6 * 4703 * 2 * 50 / 64)
    assert with_steps(config, 512).rewards.steps == 9600
    given = configs.get_config("digits")
    assert with_steps(given, 512).rewards.steps == given.rewards.steps > 0
    with given.unlocked():
        given.rewards.steps = 0
    with pytest.raises(ValueError, match=r"rewards\.steps and rewards\.epochs are both 0"):
        check(given)
    with given.unlocked():
        given.rewards.epochs, given.rewards.batch_size = 2.0, 0
    with pytest.raises(ValueError, match=r"rewards\.batch_size is 0"):
        check(given)


def chains(folder, preset, count=20):
    """Pictures of two prompts, by the published pipeline and by ours, from one noise."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    theirs = pytest.importorskip("diffusers.pipelines.deprecated.stable_diffusion_safe")

    class SameLevels(diffusers.DDIMScheduler):
        """DDIM at levels that end at 0; the library's own leave the ends out."""

        def set_timesteps(self, number, device=None):
            del number, device
            self.timesteps = torch.tensor(np.ascontiguousarray(ddim_levels(1000, count)))

        def step(self, output, t, x, **other):
            del other
            at = int((self.timesteps == t).nonzero())
            ab = self.alphas_cumprod[self.timesteps[at]]
            x_0 = (x - (1 - ab).sqrt() * output) / ab.sqrt()
            if at + 1 == count:
                return types.SimpleNamespace(prev_sample=x_0)
            ab = self.alphas_cumprod[self.timesteps[at + 1]]
            return types.SimpleNamespace(
                prev_sample=ab.sqrt() * x_0 + (1 - ab).sqrt() * output
            )

    prompts = ["a bear", "a cat"]
    pipe = theirs.StableDiffusionPipelineSafe.from_pretrained(
        folder, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipe.scheduler = SameLevels.from_config(pipe.scheduler.config)
    pipe.safety_concept = "a bear"
    pipe.set_progress_bar_config(disable=True)
    model = load_stable_diffusion(folder)
    config = configs.get_config("sd,smoke")
    with config.unlocked():
        config.sd.safety = preset
    pair = stable_diffusion.build(config.sd, model, model, Prompts(prompts, {}))
    keys = jax.random.split(jax.random.key(0), 2)
    noise = jax.vmap(lambda key: draw_noise(pair.schedule, key, pair.shape))(keys)

    def one(key, row):
        return paired_chain(
            *pair.models(pair.params, row),
            pair.schedule,
            key,
            pair.shape,
            follow_expert=True,
            num_evaluations=count,
        ).x_0

    ours = pair.decode(jax.vmap(one)(keys, pair.contexts([0, 1])))
    found = pipe(
        prompts,
        latents=torch.tensor(np.asarray(noise).transpose(0, 3, 1, 2)),
        num_inference_steps=count,
        guidance_scale=config.sd.scale,
        output_type="np",
        height=32,
        width=32,
        **getattr(theirs.SafetyConfig, preset.upper()),
    ).images
    return np.asarray(found), ours


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:The decode_latents method is deprecated")
@pytest.mark.parametrize("preset", sorted(SAFETY_PRESETS))
def test_whole_safe_chains_are_those_of_the_published_pipeline(written, preset):
    theirs, ours = chains(written[0], preset)
    assert np.std(ours) > 0.05
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
