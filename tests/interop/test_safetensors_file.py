"""The safetensors format by streams: what the library writes, and what nobody may."""

import json
import struct
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as library

from diffreward import files
from diffreward.interop import read_tensors, save_pipeline
from diffreward.interop.latent import Part
from diffreward.interop.safetensors_file import DTYPES
from diffreward.interop.tensors import read_weights
from diffreward.networks.latent import Decoder, Encoder, TextEncoder, Unet2D
from experiments.images.miniature import SCHEDULER

SHAPES = ((), (0, 3), (5,), (2, 3, 1, 4))


def tensors():
    rng = np.random.default_rng(0)
    make = lambda kind, shape: rng.integers(0, 2, shape).astype(kind)
    return {
        f"{name}.{len(shape)}": np.asarray(make(kind, shape))
        for name, kind in DTYPES.items()
        for shape in SHAPES
    }


def write(path, header, data=b"\0" * 24):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_every_type_and_shape_is_read_as_the_library_wrote_it(tmp_path):
    path, wanted = tmp_path / "a.safetensors", tensors()
    path.write_bytes(library.save(wanted, metadata={"format": "pt"}))
    with files.recorded() as ledger:
        found = read_weights(path)
    assert found.header == {"format": "pt"}
    assert found.tensors.keys() == wanted.keys()
    for name, value in wanted.items():
        own = found.tensors[name]
        assert (own.dtype, own.shape) == (value.dtype, value.shape)
        assert own.tobytes() == value.tobytes()
    assert ledger == {path: files.sha256(path)}


def test_every_other_length_is_refused(tmp_path):
    whole = library.save({"a": np.arange(6.0), "b": np.ones((2, 2), np.float32)})
    path = tmp_path / "a.safetensors"
    path.write_bytes(whole)
    assert set(read_tensors(path)) == {"a", "b"}
    for data in [*(whole[:n] for n in range(len(whole))), whole + b"\0"]:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"a\.safetensors is no valid") as caught:
            read_tensors(path)
        assert "\n" not in str(caught.value)


PART = {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ([PART], "no JSON object"),
        (b'{"a": 1, "a": 2}', "one name twice"),
        (b'{"a": ' + json.dumps(PART).encode(), "no valid"),
        (b"{" + b"\xff" * 9, "no valid"),
        ({"a": PART | {"dtype": "C64"}}, "unknown type 'C64'"),
        ({"a": PART | {"dtype": ["F32"]}}, "unknown type"),
        ({"a": PART | {"shape": [2, 2]}}, "bytes for another shape"),
        ({"a": PART | {"shape": [-6]}}, "no whole numbers"),
        ({"a": PART | {"shape": [True] * 6}}, "no whole numbers"),
        ({"a": PART | {"shape": [6.0]}}, "no whole numbers"),
        ({"a": PART | {"data_offsets": [4, 28]}}, "begins at byte 4"),
        ({"a": PART | {"data_offsets": [0, 24, 24]}}, "no whole numbers"),
        ({"a": PART | {"data_offsets": [24, 0]}}, "bytes for another shape"),
        ({"a": PART, "b": PART}, "begins at byte 0"),
        ({"a": PART | {"shape": [3], "data_offsets": [0, 12]}}, "12 bytes too many"),
        ({"a": PART | {"more": 1}}, "needs a dtype, a shape and data_offsets"),
        ({"a": 7}, "needs a dtype"),
        ({"__metadata__": {"a": 1}, "a": PART}, "must be texts"),
        ({"a": PART | {"shape": [2**62], "data_offsets": [0, 2**64]}}, "cut short"),
    ],
)
def test_headers_that_promise_something_else_are_refused(tmp_path, header, words):
    path = write(tmp_path / "a.safetensors", header)
    with pytest.raises(ValueError, match="is no valid safetensors file") as caught:
        read_tensors(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def full_size(folder, monkeypatch):
    """Stable Diffusion v1's sizes, in bfloat16; returns the bytes of its parameters."""
    noise = np.random.default_rng(0).normal(0, 0.02, 2**20).astype(np.float32)
    count = 0

    def part(network, *arguments):
        nonlocal count
        made = jax.eval_shape(network.init, jax.random.key(0), *arguments)
        count += 2 * sum(leaf.size for leaf in jax.tree.leaves(made))
        return Part(network, jax.tree.map(lambda leaf: np.resize(noise, leaf.shape), made))

    def weights(path, found):
        data = {n: x.astype(ml_dtypes.bfloat16) for n, x in found.items()}
        files.write_bytes(path, library.save(data, metadata={"format": "pt"}))

    monkeypatch.setattr(save_pipeline, "_weights", weights)
    shape = lambda *sides: jax.ShapeDtypeStruct(sides, jnp.float32)
    whole = jax.ShapeDtypeStruct((), jnp.int32)
    ids = jax.ShapeDtypeStruct((77,), jnp.int32)
    words = ["<|startoftext|>", "<|endoftext|>", *(f"w{i}" for i in range(49406))]
    widths = (128, 256, 512, 512)
    pipeline = save_pipeline.Pipeline(
        part(TextEncoder(49408, 768, 12, 12, 3072, 77), ids),
        part(Unet2D(), shape(64, 64, 4), whole, shape(77, 768)),
        part(Encoder(widths, 2, 4, 32), shape(64, 64, 3)),
        part(Decoder(widths, 2, 3, 32), shape(8, 8, 4)),
        {word: i for i, word in enumerate(words)},
        [],
        0.18215,
        64,
        SCHEDULER,
    )
    save_pipeline.save_pipeline(folder, pipeline)
    return count


MEASURE = """
import resource, sys
import jax.numpy as jnp
from diffreward.interop.stable_diffusion import load_stable_diffusion
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
jnp.zeros(()).block_until_ready()
before = peak()
model = load_stable_diffusion(sys.argv[1], dtype=jnp.bfloat16)
print(peak() - before)
"""


@pytest.mark.slow
def test_a_full_size_folder_needs_little_more_than_its_parameters(tmp_path, monkeypatch):
    pytest.importorskip("tokenizers")
    count = full_size(tmp_path / "sd", monkeypatch)
    assert 2.1e9 < count < 2.2e9
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "sd")]
    out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    assert int(out.stdout) < 1.3 * count
