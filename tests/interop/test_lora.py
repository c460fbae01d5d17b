"""Adaptations: names of every dialect, the algebra, and what is refused."""

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from diffreward.interop import merge_lora, read_lora
from diffreward.interop.original_unet import original_names
from diffreward.interop.stable_diffusion import load_stable_diffusion
from tests.fuzz.damage import damaged, outcome
from tests.interop.tiny_pipeline import write_pipeline

RNG = np.random.default_rng(0)
MODULE = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
SHORT = MODULE.removesuffix(".to_q")
TEXT = "encoder.layers.1.self_attn.v_proj"
DIALECTS = {
    "peft": (f"unet.{MODULE}.lora_A.weight", f"unet.{MODULE}.lora_B.weight"),
    "peft_named": (
        f"unet.{MODULE}.lora_A.default.weight",
        f"unet.{MODULE}.lora_B.default.weight",
    ),
    "bare": (f"{MODULE}.lora_A.weight", f"{MODULE}.lora_B.weight"),
    "diffusers": (f"unet.{MODULE}.lora.down.weight", f"unet.{MODULE}.lora.up.weight"),
    "processor": (
        f"unet.{SHORT}.processor.to_q_lora.down.weight",
        f"unet.{SHORT}.processor.to_q_lora.up.weight",
    ),
    "kohya": (
        f"lora_unet_{MODULE.replace('.', '_')}.lora_down.weight",
        f"lora_unet_{MODULE.replace('.', '_')}.lora_up.weight",
    ),
}
TEXT_DIALECTS = (
    f"text_encoder.text_model.{TEXT}.lora_A.weight",
    f"text_encoder.text_model.{TEXT}.lora_linear_layer.down.weight",
    f"lora_te_text_model_{TEXT.replace('.', '_')}.lora_down.weight",
)


def draw(*shape):
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_names_the_same_module(tmp_path, dialect):
    down, up, path = draw(2, 6), draw(5, 2), tmp_path / "lora.safetensors"
    names = DIALECTS[dialect]
    save_file({names[0]: down, names[1]: up}, path)
    found = read_lora(path)
    assert list(found["unet"]) == [MODULE.replace(".", "_")]
    assert not found["text_encoder"]
    adaptation = found["unet"][MODULE.replace(".", "_")]
    np.testing.assert_array_equal(adaptation.down, down)
    np.testing.assert_array_equal(adaptation.up, up)
    assert adaptation.alpha == 2  # the rank: no scaling

    weight = draw(5, 6)
    weights = {f"{MODULE}.weight": weight, "other.weight": draw(3, 3)}
    merged = merge_lora(weights, found["unet"], 0.5, path)
    np.testing.assert_allclose(
        merged[f"{MODULE}.weight"], weight + 0.5 * up @ down, rtol=1e-5
    )
    assert merged["other.weight"] is weights["other.weight"]


@pytest.mark.parametrize("name", TEXT_DIALECTS)
@pytest.mark.parametrize("outer", ["", "text_model."])
def test_text_encoders_are_adapted_under_both_their_names(tmp_path, name, outer):
    down, up, path = draw(2, 6), draw(5, 2), tmp_path / "lora.safetensors"
    save_file({name: down, name.replace("_A", "_B").replace("down", "up"): up}, path)
    found = read_lora(path)["text_encoder"]
    weight = draw(5, 6)
    merged = merge_lora({f"{outer}{TEXT}.weight": weight}, found, 1.0, path)
    expected = weight + up @ down
    np.testing.assert_allclose(merged[f"{outer}{TEXT}.weight"], expected, rtol=1e-5)


def test_alpha_is_divided_by_the_rank_and_convolutions_are_matrices(tmp_path):
    down, up, path = draw(4, 3, 3, 3), draw(5, 4, 1, 1), tmp_path / "lora.safetensors"
    stem = "lora_unet_down_blocks_0_resnets_0_conv1"
    save_file(
        {
            f"{stem}.lora_down.weight": down,
            f"{stem}.lora_up.weight": up,
            f"{stem}.alpha": np.array(1.0, np.float32),
        },
        path,
    )
    weight = draw(5, 3, 3, 3)
    name = "down_blocks.0.resnets.0.conv1.weight"
    merged = merge_lora({name: weight}, read_lora(path)["unet"], 2.0, path)
    change = np.einsum("or,rikl->oikl", up[:, :, 0, 0], down) * 2.0 / 4
    np.testing.assert_allclose(merged[name], weight + change, rtol=1e-4, atol=1e-5)


def test_an_output_projection_may_be_the_first_of_a_list(tmp_path):
    path = tmp_path / "lora.safetensors"
    down, up = draw(2, 6), draw(5, 2)
    stem = f"unet.{SHORT}.processor.to_out_lora"
    save_file({f"{stem}.down.weight": down, f"{stem}.up.weight": up}, path)
    name, weight = f"{SHORT}.to_out.0.weight", draw(5, 6)
    merged = merge_lora({name: weight}, read_lora(path)["unet"], 1.0, path)
    np.testing.assert_allclose(merged[name], weight + up @ down, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unet.a.hada_w1_a": draw(2, 2)}, "unet.a.hada_w1_a belongs to no LoRA"),
        ({"unet.a.lora_mid.weight": draw(2, 2)}, "belongs to no LoRA of a kind"),
        ({"unet.a.lora_A.weight": draw(2, 2)}, "a lacks its up matrix"),
        (
            {"unet.a.lora_A.weight": draw(2, 2), "a.lora_A.weight": draw(2, 2)},
            "comes twice",
        ),
        (
            {"a.lora_A.weight": draw(2, 6), "a.lora_B.weight": draw(5, 3)},
            r"shapes \(5, 3\) and \(2, 6\) do not multiply",
        ),
    ],
)
def test_what_is_no_lora_is_refused(tmp_path, changes, message):
    path = tmp_path / "lora.safetensors"
    save_file(changes, path)
    with pytest.raises(ValueError, match=message) as error:
        read_lora(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("other.weight", (5, 6), "there is no weight 'a' to adapt"),
        ("a.weight", (5, 7), r"adapts a weight of shape \(5, 6\), but a.weight has"),
    ],
)
def test_a_lora_of_another_network_is_refused(tmp_path, name, shape, message):
    path = tmp_path / "lora.safetensors"
    save_file({"a.lora_A.weight": draw(2, 6), "a.lora_B.weight": draw(5, 2)}, path)
    with pytest.raises(ValueError, match=message):
        merge_lora({name: draw(*shape)}, read_lora(path)["unet"], 1.0, path)


@pytest.mark.parity
def test_an_adapted_pipeline_is_the_one_with_changed_weights(tmp_path):
    pytest.importorskip("tokenizers")
    folder, other = tmp_path / "sd", tmp_path / "merged"
    write_pipeline(folder)
    shutil.copytree(folder, other)
    path, tensors = tmp_path / "lora.safetensors", {}
    places = {
        "unet": ("unet/diffusion_pytorch_model.safetensors", MODULE),
        "text_encoder": ("text_encoder/model.safetensors", TEXT),
    }
    for part, (file, module) in places.items():
        weights = load_file(other / file)
        name = next(n for n in weights if n.endswith(f"{module}.weight"))
        out_dim, in_dim = weights[name].shape
        down, up = draw(2, in_dim), draw(out_dim, 2)
        tensors |= {
            f"{part}.{module}.lora_A.weight": down,
            f"{part}.{module}.lora_B.weight": up,
        }
        weights[name] = weights[name] + 0.7 * up @ down
        save_file(weights, other / file, metadata={"format": "pt"})
    save_file(tensors, path)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        found = load_stable_diffusion(folder, lora=path, lora_scale=0.7)
        expected = load_stable_diffusion(other)
        plain = load_stable_diffusion(folder)
    for part in ("unet", "text_encoder"):
        ours, theirs, base = (getattr(p, part).params for p in (found, expected, plain))
        close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        jax.tree.map(close, ours, theirs)
        moved = jax.tree.map(lambda a, b: bool((a != b).any()), ours, base)
        assert sum(jax.tree.leaves(moved)) == 1


def adapted(path, module=MODULE, *, rank=4, prefix="", beside=None, header=None, **more):
    """Writes an adaptation; returns its alpha as read and the change of a weight."""
    down, up = np.ones((rank, 6), np.float32), np.ones((5, rank), np.float32)
    names = (f"{prefix}{module}.lora_A.weight", f"{prefix}{module}.lora_B.weight")
    save_file(dict(zip(names, (down, up), strict=True)) | more, path, header)
    if beside is not None:
        (path.parent / "adapter_config.json").write_text(json.dumps(beside))
    found = read_lora(path)["unet"]
    weights = {f"{MODULE}.weight": np.zeros((5, 6), np.float32)}
    merged = merge_lora(weights, found, 1.0, path)[f"{MODULE}.weight"]
    return next(iter(found.values())).alpha, merged[0, 0]


def in_header(**settings):
    """As diffusers writes it: every key with the network's name in front."""
    named = {f"unet.{key}": value for key, value in settings.items()}
    return {"format": "pt", "lora_adapter_metadata": json.dumps(named)}


PLAIN = {"r": 4, "lora_alpha": 16, "bias": "none", "lora_bias": False, "use_dora": False}
STRENGTHS = {
    "nothing": ({}, 4),
    "header": ({"header": in_header(**PLAIN)}, 16),
    "header without names": (
        {"header": {"lora_adapter_metadata": json.dumps(PLAIN)}},
        16,
    ),
    "beside": ({"beside": PLAIN | {"peft_type": "LORA"}}, 16),
    "beside, PEFT's names": ({"beside": PLAIN, "prefix": "base_model.model."}, 16),
    "a pattern of alpha": ({"header": in_header(**PLAIN, alpha_pattern={"to_q": 2})}, 2),
    "another's pattern": ({"header": in_header(**PLAIN, alpha_pattern={"o_q": 2})}, 16),
    "anchored": ({"header": in_header(**PLAIN, alpha_pattern={"^" + MODULE: 3})}, 3),
    "anchored elsewhere": ({"header": in_header(**PLAIN, alpha_pattern={"^to_q": 3})}, 16),
    "a pattern of ranks": (
        {"rank": 2, "header": in_header(**PLAIN, rank_pattern={"attn1.to_q": 2})},
        16,
    ),
    "rank-stabilised": ({"beside": PLAIN | {"use_rslora": True}}, 16 * 2),
    "a tensor of one number": ({f"{MODULE}.alpha": np.array([8], np.float32)}, 8),
    "a tensor that agrees": (
        {f"{MODULE}.alpha": np.array(16, np.float32), "beside": PLAIN},
        16,
    ),
}


@pytest.mark.parametrize("name", STRENGTHS)
def test_alpha_is_where_the_training_wrote_it(name, tmp_path):
    options, alpha = STRENGTHS[name]
    found, change = adapted(tmp_path / "lora.safetensors", **options)
    assert found == pytest.approx(alpha)
    # Ones times ones summed over the rank, times alpha / rank.
    assert change == pytest.approx(alpha)


ONE = np.ones(1, np.float32)
KOHYA = {"ss_network_dim": "4", "ss_network_alpha": "1.0"}
REFUSED = {
    "DoRA": ({"beside": PLAIN | {"use_dora": True}}, "use_dora = true is not supported"),
    "bias": ({"header": in_header(**PLAIN | {"bias": "all"})}, 'bias = "all" is not'),
    "PiSSA": ({"beside": PLAIN | {"init_lora_weights": "pissa"}}, "'pissa' changes the"),
    "unknown": ({"beside": PLAIN | {"gain": 2}}, "gain = 2 is not supported"),
    "transposed": ({"beside": PLAIN | {"fan_in_fan_out": True}}, "fan_in_fan_out = true"),
    "LoHa": ({"beside": PLAIN | {"peft_type": "LOHA"}}, "'LOHA' is no LoRA"),
    "rank": ({"beside": PLAIN | {"r": 8}}, "has rank 4, but .*adapter_config.json says 8"),
    "no alpha": ({"beside": {"r": 4}}, "lora_alpha = None is no positive number"),
    "text": ({"beside": PLAIN | {"lora_alpha": "16"}}, "lora_alpha = '16' is no positive"),
    "a regex": (
        {"header": in_header(**PLAIN, alpha_pattern={"(a+)+$": 1})},
        "alpha_pattern is not understood",
    ),
    "no JSON": ({"header": {"lora_adapter_metadata": "[" * 10**5}}, "is not valid JSON"),
    "no object": ({"header": {"lora_adapter_metadata": "[]"}}, "is no object"),
    "alpha twice": (
        {f"{MODULE}.alpha": ONE, "beside": PLAIN},
        "has alpha 1 as a tensor, but .*adapter_config.json makes it 16",
    ),
    "alpha of two": (
        {f"{MODULE}.alpha": np.ones(2, np.float32)},
        r"alpha has shape \(2,\)",
    ),
    "kohya without alpha": ({"header": KOHYA}, "says alpha '1.0' and rank '4'"),
    "magnitudes": ({f"{MODULE}.lora_magnitude_vector": ONE}, "belongs to no LoRA"),
    "dora_scale": ({f"{MODULE}.dora_scale": ONE}, "belongs to no LoRA"),
    "LoKr": ({f"{MODULE}.lokr_w1": ONE}, "belongs to no LoRA"),
    "full differences": ({f"{MODULE}.diff": ONE}, "belongs to no LoRA"),
    "bias tensors": ({f"{MODULE}.lora_B.bias": ONE}, "belongs to no LoRA"),
    "NaN": ({f"{MODULE}.alpha": ONE * np.nan}, "has numbers that are NaN or infinite"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_settings_that_would_change_numbers_are_refused(name, tmp_path):
    options, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as caught:
        adapted(tmp_path / "lora.safetensors", **options)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("down", "up"), [((), ()), ((0, 6), (5, 0)), ((6,), (5,)), ((2, 6, 3), (5, 2, 1))]
)
def test_matrices_that_are_none_are_refused(tmp_path, down, up):
    path = tmp_path / "lora.safetensors"
    zeros = {"a.lora_A.weight": down, "a.lora_B.weight": up}
    save_file({k: np.zeros(s, np.float32) for k, s in zeros.items()}, path)
    with pytest.raises(ValueError, match="do not multiply"):
        read_lora(path)


def test_shapes_are_compared_before_they_are_multiplied(tmp_path):
    path = tmp_path / "lora.safetensors"
    thin = {"a.lora_A.weight": draw(1, 25_000), "a.lora_B.weight": draw(25_000, 1)}
    save_file(thin, path)
    read = lambda: merge_lora({"a.weight": draw(5, 6)}, read_lora(path)["unet"], 1.0, path)
    message = outcome(read, path, memory=8 * 2**20)
    assert message is not None
    assert "adapts a weight of shape (25000, 25000), but a.weight" in message


ORIGINAL = {
    "input_blocks_0_0": "conv_in",
    "input_blocks_1_1_transformer_blocks_0_attn1_to_q": (
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    ),
    "input_blocks_2_1_proj_in": "down_blocks.0.attentions.1.proj_in",
    "input_blocks_3_0_op": "down_blocks.0.downsamplers.0.conv",
    "input_blocks_4_0_in_layers_2": "down_blocks.1.resnets.0.conv1",
    "input_blocks_4_0_skip_connection": "down_blocks.1.resnets.0.conv_shortcut",
    "input_blocks_11_0_emb_layers_1": "down_blocks.3.resnets.1.time_emb_proj",
    "middle_block_0_out_layers_3": "mid_block.resnets.0.conv2",
    "middle_block_1_proj_out": "mid_block.attentions.0.proj_out",
    "middle_block_2_in_layers_2": "mid_block.resnets.1.conv1",
    "output_blocks_0_0_in_layers_2": "up_blocks.0.resnets.0.conv1",
    "output_blocks_2_1_conv": "up_blocks.0.upsamplers.0.conv",
    "output_blocks_3_1_transformer_blocks_0_ff_net_0_proj": (
        "up_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj"
    ),
    "output_blocks_5_2_conv": "up_blocks.1.upsamplers.0.conv",
    "output_blocks_11_1_transformer_blocks_0_attn2_to_out_0": (
        "up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_out.0"
    ),
    "time_embed_2": "time_embedding.linear_2",
    "out_2": "conv_out",
}
"""Of Stable Diffusion v1: four levels of two blocks, attention in all but the deepest."""


def test_names_of_the_original_unet_are_those_of_diffusers():
    there = ["down_blocks.0.resnets.1.conv1", *ORIGINAL.values()]
    names = original_names([f"{name}.weight" for name in there])
    for original, theirs in ORIGINAL.items():
        assert names[original] == f"{theirs}.weight", original


def test_original_names_are_merged_and_a_weight_only_once(tmp_path):
    path = tmp_path / "lora.safetensors"
    stem = "input_blocks_1_1_transformer_blocks_0_attn1_to_q"
    down, up = draw(2, 6), draw(5, 2)
    old = {
        f"lora_unet_{stem}.lora_down.weight": down,
        f"lora_unet_{stem}.lora_up.weight": up,
    }
    save_file(old, path)
    weights = {f"{MODULE}.weight": draw(5, 6), "down_blocks.0.resnets.1.conv1.weight": ONE}
    merged = merge_lora(weights, read_lora(path)["unet"], 1.0, path)
    wanted = weights[f"{MODULE}.weight"] + up @ down
    np.testing.assert_allclose(merged[f"{MODULE}.weight"], wanted, rtol=1e-5)
    new = {f"{MODULE}.lora_A.weight": down, f"{MODULE}.lora_B.weight": up}
    save_file(old | new, path)
    with pytest.raises(ValueError, match=r"to_q\.weight is adapted twice"):
        merge_lora(weights, read_lora(path)["unet"], 1.0, path)


def test_damaged_adaptations_are_refused_or_read(tmp_path):
    path = tmp_path / "lora.safetensors"
    adapted(path, header=in_header(**PLAIN))
    whole, refused = path.read_bytes(), 0
    for _, data in damaged(whole, np.random.default_rng(2), 60):
        path.write_bytes(data)
        refused += outcome(lambda: read_lora(path), path) is not None
    assert refused > 20
