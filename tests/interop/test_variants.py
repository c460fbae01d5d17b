"""Folders with several weights: which are read, and what is said."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from diffreward.interop import read_tensors
from tests.fuzz.damage import damaged, outcome
from tests.interop.torch_file import save_torch

NUMBERS = np.arange(6, dtype=np.float32)
STEM = "diffusion_pytorch_model"


def put(folder, name, value, other=None):
    """Weights whose only number says which file they are of."""
    tensors = {"a": NUMBERS + value} | ({"b": NUMBERS} if other else {})
    save = save_torch if not name.endswith(".safetensors") else save_file
    save(tensors, folder / name)


def shards(folder, stem, index, value, variant=""):
    """Two shards and their index, named as diffusers (1) or transformers (2) do."""
    names = [f"{stem}-0000{i}-of-00002{variant}.safetensors" for i in (1, 2)]
    save_file({"a": NUMBERS + value}, folder / names[0])
    save_file({"b": NUMBERS + value}, folder / names[1])
    weights = {"weight_map": dict(zip("ab", names, strict=True)), "metadata": {}}
    (folder / index).write_text(json.dumps(weights))


def which(folder, variant=None):
    return read_tensors(folder, variant)["a"][0]


ORDER = [
    (f"{STEM}.non_ema.safetensors", "non_ema"),
    (f"{STEM}.bf16.bin", "bf16"),
    (f"{STEM}.fp16.bin", "fp16"),
    (f"{STEM}.fp16.safetensors", "fp16"),
    (f"{STEM}.bin", None),
    (f"{STEM}.safetensors", None),
]


def test_each_kind_is_preferred_to_the_ones_before(tmp_path, capsys):
    for value, (name, variant) in enumerate(ORDER):
        put(tmp_path, name, value)
        assert which(tmp_path) == value
        said = capsys.readouterr().err
        wanted = f"{tmp_path} has no main weights; read are its {variant}\n"
        assert said == (wanted if variant else "")
    shards(tmp_path, STEM, f"{STEM}.safetensors.index.json", 9)
    assert which(tmp_path) == 9
    assert which(tmp_path, "main") == 9
    assert which(tmp_path, "fp16") == 3
    assert which(tmp_path, "non_ema") == 0
    (tmp_path / "optimizer.pt").write_bytes(b"not read")


@pytest.mark.parametrize(
    ("stem", "index", "variant"),
    [
        (STEM, f"{STEM}.safetensors.index.fp16.json", ".fp16"),
        ("model.fp16", "model.safetensors.index.fp16.json", ""),
        ("model", "model.fp16.safetensors.index.json", ".fp16"),
    ],
)
def test_shards_of_a_variant(tmp_path, stem, index, variant, capsys):
    shards(tmp_path, stem, index, 3, variant)
    assert which(tmp_path) == 3
    assert "read are its fp16" in capsys.readouterr().err
    put(tmp_path, f"{stem.split('.')[0]}.safetensors", 4)
    assert which(tmp_path) == 4
    assert which(tmp_path, "fp16") == 3


def test_variants_without_an_order_are_refused(tmp_path):
    for variant in ("ema", "non_ema"):
        put(tmp_path, f"{STEM}.{variant}.safetensors", 1)
    with pytest.raises(ValueError, match="has no main weights but ema, non_ema; say which"):
        which(tmp_path)
    with pytest.raises(ValueError, match="has no weights 'fp16'; there are ema, non_ema"):
        which(tmp_path, "fp16")
    with pytest.raises(ValueError, match="is one file, without a variant 'ema'"):
        read_tensors(tmp_path / f"{STEM}.ema.safetensors", "ema")
    put(tmp_path, f"{STEM}.safetensors", 1)
    put(tmp_path, "model.safetensors", 1)
    with pytest.raises(ValueError, match="one weights file, found: diff.*, model"):
        which(tmp_path)


INDEXES = {
    "weight_map a list": ({"weight_map": ["a"]}, "has no weight_map"),
    "no map": ({}, "has no weight_map"),
    "a list": ([], "has no weight_map"),
    "shard a number": ({"weight_map": {"a": 5}}, "says that a is in 5, no file name"),
    "shard a list": ({"weight_map": {"a": ["b"]}}, "is in a list, no file name"),
    "the folder itself": ({"weight_map": {"a": "."}}, "names '.', which is no file"),
    "above": ({"weight_map": {"a": "../x.safetensors"}}, "which is no file inside it"),
    "absolute": ({"weight_map": {"a": "/x.safetensors"}}, "which is no file inside it"),
    "link": ({"weight_map": {"a": "link.safetensors"}}, "is a link that leads out of"),
    "missing": ({"weight_map": {"a": "none.safetensors"}}, "does not exist"),
    "promised": (
        {"weight_map": {"a": "1.safetensors", "c": "1.safetensors"}},
        "promises c, no file has it",
    ),
    "astray": (
        {"weight_map": {"a": "1.safetensors", "b": "1.safetensors", "c": "2.safetensors"}},
        "2.safetensors has a, model.safetensors.index.json does not say so|in two files",
    ),
    "twice": (
        {"weight_map": {"a": "1.safetensors", "b": "3.safetensors"}},
        "a is in two files|has a, .* does not say so",
    ),
}


@pytest.mark.parametrize("name", INDEXES)
def test_indexes_are_taken_at_their_word(tmp_path, name):
    body, message = INDEXES[name]
    folder = tmp_path / "m"
    folder.mkdir()
    put(tmp_path, "x.safetensors", 0)
    (folder / "link.safetensors").symlink_to(tmp_path / "x.safetensors")
    put(folder, "1.safetensors", 0)
    put(folder, "2.safetensors", 0, other=True)
    put(folder, "3.safetensors", 0, other=True)
    (folder / "model.safetensors.index.json").write_text(json.dumps(body))
    with pytest.raises((ValueError, OSError), match=message) as caught:
        read_tensors(folder)
    assert "\n" not in str(caught.value)


def test_damaged_weights_and_indexes_are_refused_or_read_right(tmp_path):
    rng = np.random.default_rng(1)
    for name in ("model.safetensors", "model.safetensors.index.json"):
        folder = tmp_path / name
        folder.mkdir()
        shards(folder, "model", "model.safetensors.index.json", 0)
        if name == "model.safetensors":
            (folder / "model.safetensors.index.json").unlink()
            put(folder, name, 0)
        whole, refused = (folder / name).read_bytes(), 0
        for _, data in damaged(whole, rng, 60):
            (folder / name).write_bytes(data)
            refused += outcome(lambda f=folder: read_tensors(f), folder) is not None
        assert refused > 20


@pytest.mark.parametrize(("name", "dtype"), [("BF16", ml_dtypes.bfloat16), ("F16", "f2")])
def test_short_floats_are_read(tmp_path, name, dtype):
    values = np.array([1.5, -2.0], np.float32)
    part = {"dtype": name, "shape": [2], "data_offsets": [0, 4]}
    header = json.dumps({"a": part}).encode()
    length = len(header).to_bytes(8, "little")
    path = tmp_path / "x.safetensors"
    path.write_bytes(length + header + values.astype(dtype).tobytes())
    found = read_tensors(path)["a"]
    np.testing.assert_array_equal(found.astype(np.float32), values)
