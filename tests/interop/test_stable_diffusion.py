"""Pipelines of the v1 family against the libraries they come from, and refusals."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from diffreward.interop.stable_diffusion import (
    load_autoencoder,
    load_stable_diffusion,
    load_text_encoder,
    load_unet,
    make_prompt_encoder,
)
from diffreward.interop.tokenizer import load_tokenizer
from tests.fuzz.damage import damaged, outcome
from tests.interop.tiny_pipeline import byte_vocabulary, write_pipeline

pytestmark = pytest.mark.parity
PROMPTS = [
    "a photograph of an astronaut",
    "Hello   World's 12!\nmoon",
    "",
    "the moon " * 60,
]
KINDS = {
    "crossed": {},
    "linear": {"linear": True, "act": "gelu"},
    "last": {"blocks": ("DownBlock2D", "CrossAttnDownBlock2D")},
}
"""Every block type of the family, both kinds of projection and of activation."""


@pytest.fixture(autouse=True)
def _flax_promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module", params=sorted(KINDS))
def written(request, tmp_path_factory):
    pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("sd") / request.param
    return folder, write_pipeline(folder, **KINDS[request.param])


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("sd") / "plain"
    write_pipeline(folder)
    return folder


def channels_last(x):
    return jnp.asarray(np.asarray(x).transpose(0, 2, 3, 1))


def test_every_part_equals_its_original(written):
    torch = pytest.importorskip("torch")
    folder, modules = written
    ours = load_stable_diffusion(folder)
    ids = ours.tokenise(PROMPTS)
    theirs = modules["tokenizer"](
        PROMPTS, padding="max_length", max_length=77, truncation=True
    )
    np.testing.assert_array_equal(ids, theirs["input_ids"])

    with torch.no_grad():
        text = modules["text_encoder"](torch.tensor(ids).long()).last_hidden_state.numpy()
    found = make_prompt_encoder(ours)(PROMPTS)
    np.testing.assert_allclose(found, text, atol=1e-4)

    rng = np.random.default_rng(0)
    z = rng.normal(size=(4, 4, 8, 8)).astype(np.float32)
    t = np.array([0, 13, 500, 999])
    with torch.no_grad():
        noise = modules["unet"](torch.tensor(z), torch.tensor(t), torch.tensor(text))
        picture = modules["vae"].decode(torch.tensor(z)).sample
        latent = modules["vae"].encode(picture).latent_dist
    network, params = ours.unet
    run = jax.jit(jax.vmap(lambda *row: network.apply(params, *row)))
    found = run(channels_last(z), jnp.asarray(t), jnp.asarray(text))
    np.testing.assert_allclose(found, channels_last(noise.sample), atol=1e-4)
    # Prompts and levels matter, so equal numbers mean equal functions.
    assert np.abs(np.diff(np.asarray(found), axis=0)).max() > 0.1

    decode = jax.vmap(lambda x: ours.decoder.network.apply(ours.decoder.params, x))
    np.testing.assert_allclose(decode(channels_last(z)), channels_last(picture), atol=1e-4)
    encode = jax.vmap(lambda x: ours.encoder.network.apply(ours.encoder.params, x))
    mean, log_variance = encode(channels_last(picture))
    np.testing.assert_allclose(mean, channels_last(latent.mean), atol=1e-4)
    np.testing.assert_allclose(log_variance, channels_last(latent.logvar), atol=1e-4)
    assert ours.latent_shape == (8, 8, 4)
    assert ours.scaling_factor == pytest.approx(0.18215)


def test_schedule_is_the_schedulers(pipeline):
    diffusers = pytest.importorskip("diffusers")
    ours = load_stable_diffusion(pipeline)
    theirs = diffusers.DDIMScheduler.from_pretrained(pipeline / "scheduler")
    np.testing.assert_allclose(ours.schedule.alpha_bar, theirs.alphas_cumprod, rtol=1e-4)
    assert ours.prediction == "eps"


def test_rematerialised_network_is_the_same_function(pipeline):
    one, two = (load_unet(pipeline / "unet", remat=r)[0] for r in (False, True))
    x, c = jnp.ones((8, 8, 4)), jnp.ones((3, 24))
    loss = lambda part: (
        lambda x: jnp.sum(part.network.apply(part.params, x, jnp.int32(5), c))
    )
    grads = [jax.grad(loss(part))(x) for part in (one, two)]
    np.testing.assert_allclose(*grads, rtol=1e-4, atol=1e-5)


def test_half_precision_computes_in_it(pipeline):
    part, _ = load_unet(pipeline / "unet", dtype=jnp.bfloat16)
    full, _ = load_unet(pipeline / "unet")
    x, c = jnp.ones((8, 8, 4)), jnp.ones((3, 24))
    low = lambda v: v.astype(jnp.bfloat16)
    y = part.network.apply(part.params, low(x), jnp.int32(5), low(c))
    assert y.dtype == jnp.bfloat16
    expected = full.network.apply(full.params, x, jnp.int32(5), c)
    gap = jnp.abs(y.astype(jnp.float32) - expected)
    assert 1e-6 < gap.max() < 0.1 * jnp.abs(expected).max()


def test_names_of_the_first_checkpoints_are_understood(pipeline, tmp_path):
    folder = tmp_path / "vae"
    shutil.copytree(pipeline / "vae", folder)
    path = folder / "diffusion_pytorch_model.safetensors"
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, value in load_file(path).items():
        for new, old in older.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        tensors[name] = value
    save_file(tensors, path)
    now, before = load_autoencoder(folder), load_autoencoder(pipeline / "vae")
    jax.tree.map(np.testing.assert_array_equal, now[1].params, before[1].params)


def edit(path, **changes):
    config = json.loads(path.read_text())
    config.update(changes)
    path.write_text(json.dumps({k: v for k, v in config.items() if v != "DELETE"}))


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("unet", {"act_fn": "gelu"}, "act_fn = 'gelu' is not supported; only 'silu'"),
        ("unet", {"new_option": 3}, "unknown option new_option = 3"),
        ("unet", {"class_embed_type": "timestep"}, "unknown option class_embed_type"),
        ("unet", {"sample_size": "DELETE"}, "lacks sample_size"),
        ("unet", {"_class_name": "UNet3D"}, "a 'UNet3D' is not supported"),
        (
            "unet",
            {"down_block_types": ["AttnDownBlock2D", "DownBlock2D", "DownBlock2D"]},
            "down_block_types has 'AttnDownBlock2D', which is not supported",
        ),
        ("unet", {"block_out_channels": [16, 32]}, "differ in length"),
        ("unet", {"cross_attention_dim": 20}, "to_k.weight has shape"),
        ("unet", {"layers_per_block": 3}, "lacks the tensor"),
        ("unet", {"layers_per_block": 1}, "has the unexpected tensor"),
        ("unet", {"layers_per_block": [2, 2, 2]}, "is not supported; one number"),
        ("vae", {"use_quant_conv": False}, "use_quant_conv = False is not supported"),
        ("vae", {"latent_channels": 8}, "has shape"),
        ("text_encoder", {"hidden_act": "relu"}, "hidden_act = 'relu' is not supported"),
        ("text_encoder", {"num_hidden_layers": 4}, "lacks the tensor layers.3"),
        ("scheduler", {"beta_schedule": "sigmoid"}, "beta_schedule = 'sigmoid'"),
    ],
)
def test_what_is_not_of_the_family_is_refused(pipeline, tmp_path, part, changes, message):
    folder = tmp_path / "sd"
    shutil.copytree(pipeline, folder)
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    edit(folder / part / name, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        load_stable_diffusion(folder)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("model_index.json", "model_index.json is missing"),
        ("vae", "lacks the folder vae"),
        ("unet/config.json", "unet/config.json is missing"),
        ("unet/diffusion_pytorch_model.safetensors", "should hold one weights file"),
        ("tokenizer/tokenizer.json", "lacks vocab.json"),
        ("scheduler/scheduler_config.json", "scheduler_config.json is missing"),
    ],
)
def test_missing_files_are_named(pipeline, tmp_path, gone, message):
    folder = tmp_path / "sd"
    shutil.copytree(pipeline, folder)
    path = folder / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ValueError, match=message):
        load_stable_diffusion(folder)


def test_other_pipelines_are_refused_without_reading_further(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(ValueError, match="a 'FluxPipeline' is not supported"):
        load_stable_diffusion(tmp_path)


def test_text_encoders_with_and_without_the_outer_name_are_one(pipeline, tmp_path):
    folder = tmp_path / "text"
    shutil.copytree(pipeline / "text_encoder", folder)
    path = folder / "model.safetensors"
    bare = {k.removeprefix("text_model."): v for k, v in load_file(path).items()}
    named = {f"text_model.{k}": v for k, v in bare.items()}
    named["text_model.embeddings.position_ids"] = np.arange(77)[None]
    expected = load_text_encoder(pipeline / "text_encoder").params
    for tensors in (bare, named):
        save_file(tensors, path)
        found = load_text_encoder(folder).params
        jax.tree.map(np.testing.assert_array_equal, found, expected)


class TestTokenizerFromItsParts:
    @pytest.fixture
    def folder(self, tmp_path):
        pytest.importorskip("tokenizers")
        vocabulary, merges = byte_vocabulary("a photograph of the moon")
        (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
        (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges))
        self.vocabulary = vocabulary
        return tmp_path

    def test_words_are_merged_and_the_rest_is_padding(self, folder):
        ids = load_tokenizer(folder, 8)(["The  MOON!", "zq"])
        v = self.vocabulary
        start, end = v["<|startoftext|>"], v["<|endoftext|>"]
        known = [start, v["the</w>"], v["moon</w>"], v["!</w>"], end, end, end, end]
        assert ids[0].tolist() == known
        assert ids[1].tolist() == [start, v["z"], v["q</w>"], end, end, end, end, end]

    def test_long_prompts_are_cut_before_the_end_token(self, folder):
        ids = load_tokenizer(folder, 5)(["moon moon moon moon moon"])
        moon = self.vocabulary["moon</w>"]
        assert ids[0, 1:4].tolist() == [moon] * 3
        assert ids[0, 4] == self.vocabulary["<|endoftext|>"]

    def test_the_folder_may_name_its_padding(self, folder):
        (folder / "tokenizer_config.json").write_text('{"pad_token": "!"}')
        ids = load_tokenizer(folder, 5)(["moon"])
        assert ids[0, 3:].tolist() == [self.vocabulary["!"]] * 2
        (folder / "tokenizer_config.json").write_text('{"pad_token": "<none>"}')
        with pytest.raises(ValueError, match="'<none>' is not in the vocabulary"):
            load_tokenizer(folder, 5)

    def test_damage_is_one_line(self, folder):
        (folder / "merges.txt").unlink()
        with pytest.raises(ValueError, match=r"lacks merges.txt \(or tokenizer.json\)"):
            load_tokenizer(folder, 5)
        (folder / "tokenizer.json").write_text("{")
        with pytest.raises(ValueError, match="holds no readable tokenizer"):
            load_tokenizer(folder, 5)
        (folder / "tokenizer.json").unlink()
        (folder / "merges.txt").write_text("#version: 0.2\n")
        (folder / "vocab.json").write_text('{"a": 0}')
        with pytest.raises(ValueError, match="vocabulary lacks"):
            load_tokenizer(folder, 5)

    def test_prompts_that_are_cut_are_told(self, folder):
        prompts = ["moon moon moon", "moon moon moon moon", "", "zq zq"]
        tokenise = load_tokenizer(folder, 5)
        assert tokenise.too_long(prompts) == [1, 3]
        assert load_tokenizer(folder, 9).too_long(prompts) == []

    def test_identifiers_beyond_the_encoders_are_refused(self, folder):
        count = len(self.vocabulary)
        load_tokenizer(folder, 5, count)
        with pytest.raises(ValueError, match=f"has the identifier {count - 1}, beyond"):
            load_tokenizer(folder, 5, count - 1)

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("tokenizer_config.json", '{"pad_token": [1]}', "not in the vocabulary"),
            ("tokenizer_config.json", "[]", "holds no object"),
            ("tokenizer_config.json", '{"tokenizer_class": "T5Tokenizer"}', "T5Tokenizer"),
            ("tokenizer.json", "[" * 100_000, "holds no readable tokenizer"),
            ("tokenizer.json", "{}", "tokenizer.json cannot be read"),
            ("merges.txt", "abc\n", "'abc' are not two parts"),
            ("merges.txt", "a b c\n", "are not two parts"),
            ("merges.txt", "\u00e9 zz\n", "merges.txt cannot be read"),
            ("vocab.json", '{"<|startoftext|>": 0.5}', "is no vocabulary"),
            ("vocab.json", '{"<|startoftext|>": -1}', "is no vocabulary"),
            ("vocab.json", "[]", "is no vocabulary"),
        ],
    )
    def test_other_damage_is_one_line(self, folder, name, text, message):
        (folder / name).write_text(text, encoding="utf-8")
        found = outcome(lambda: load_tokenizer(folder, 5), folder / name)
        assert found is not None
        assert message in found

    def test_random_damage_is_one_line(self, folder):
        rng = np.random.default_rng(6)
        for name in ("vocab.json", "merges.txt"):
            path, refused = folder / name, 0
            whole = path.read_bytes()
            for _, data in damaged(whole, rng, 40):
                path.write_bytes(data)
                refused += outcome(lambda: load_tokenizer(folder, 5), folder) is not None
            path.write_bytes(whole)
            assert refused > 5
