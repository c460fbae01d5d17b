"""Adaptations: names of every dialect, the algebra, and what is refused."""

import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from diffreward.interop import merge_lora, read_lora
from diffreward.interop.stable_diffusion import load_stable_diffusion
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
