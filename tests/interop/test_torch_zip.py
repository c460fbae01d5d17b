"""PyTorch zips, written by PyTorch where it is there and by hand where it is not."""

import io
import os
import pickle
import random
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from diffreward.interop import read_checkpoint, read_tensors, read_torch


class FloatStorage:
    """Pickled under the name torch.FloatStorage."""


class Tensor:
    """Pickles itself as PyTorch pickles a tensor."""

    def __init__(self, key, shape, stride=None, offset=0, count=None):
        self.key, self.shape, self.offset = key, shape, offset
        self.stride = stride or tuple(
            int(np.prod(shape[i + 1 :])) for i in range(len(shape))
        )
        self.count = int(np.prod(shape)) if count is None else count


class Writer(pickle._Pickler):
    """A pickler that can name classes of modules that are not installed."""

    def save(self, obj, *args, **kwargs):
        if isinstance(obj, Tensor):
            self.write(pickle.GLOBAL + b"torch._utils\n_rebuild_tensor_v2\n")
            self.write(pickle.MARK + pickle.MARK)
            super().save("storage")
            self.write(pickle.GLOBAL + b"torch\nFloatStorage\n")
            for part in (obj.key, "cpu", obj.count):
                super().save(part)
            self.write(pickle.TUPLE + pickle.BINPERSID)
            for part in (obj.offset, obj.shape, obj.stride, False):
                super().save(part)
            super().save(OrderedDict())
            self.write(pickle.TUPLE + pickle.REDUCE)
        else:
            super().save(obj, *args, **kwargs)


def write(path, value, storages, **extra):
    body = io.BytesIO()
    Writer(body, protocol=2).dump(value)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", body.getvalue())
        archive.writestr("archive/byteorder", extra.get("byteorder", b"little"))
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
    return path


NUMBERS = np.arange(6, dtype=np.float32)


def simple(path):
    value = {"a": Tensor("0", (2, 3)), "b": Tensor("0", (3,), (2,), 1, count=6)}
    return write(path, value, {"0": NUMBERS.tobytes()})


def test_tensors_views_and_shared_storages(tmp_path):
    found = read_tensors(simple(tmp_path / "x.pt"))
    np.testing.assert_array_equal(found["a"], NUMBERS.reshape(2, 3))
    np.testing.assert_array_equal(found["b"], [1, 3, 5])


def test_everything_pytorch_saves(tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.arange(12.0).reshape(3, 4)
    saved = {
        "float": base,
        "transposed": base.T,
        "slice": base[1:, ::2],
        "half": base.half(),
        "bfloat": base.bfloat16(),
        "double": base.double(),
        "long": base.long(),
        "bool": base > 3,
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5),
        "parameter": torch.nn.Parameter(base + 1),
    }
    torch.save({"model": OrderedDict(saved), "step": 7, "lr": [0.1, None]}, tmp_path / "x")
    found = read_torch(tmp_path / "x")
    assert (found["step"], found["lr"]) == (7, [0.1, None])
    for name, tensor in saved.items():
        wanted = tensor.detach().float().numpy()
        got = found["model"][name]
        np.testing.assert_array_equal(np.asarray(got, np.float32), wanted)
        assert got.shape == tuple(tensor.shape)


class Hostile:
    def __init__(self, function, *args):
        self.how = function, args

    def __reduce__(self):
        return self.how


@pytest.mark.parametrize("function", [os.system, eval, getattr, exec, __import__])
def test_hostile_pickles_are_refused_and_do_not_run(function, tmp_path):
    mark = tmp_path / "ran"
    code = {
        os.system: (f"touch {mark}",),
        eval: (f"open({str(mark)!r}, 'w')",),
        exec: (f"open({str(mark)!r}, 'w')",),
        getattr: ("", "join"),
        __import__: ("os",),
    }[function]
    path = write(tmp_path / "x.pt", {"a": [Hostile(function, *code)]}, {})
    with pytest.raises(ValueError, match=r"x\.pt wants to run \w+\.\w+; only tensors"):
        read_torch(path)
    assert not mark.exists()
    # The same file does run under the plain unpickler: the test can fail.
    if function is os.system:
        pickle.loads(zipfile.ZipFile(path).read("archive/data.pkl"))
        assert mark.exists()


def test_an_object_of_a_class_is_refused(tmp_path):
    path = write(tmp_path / "x.pt", pathlib_object(), {})
    with pytest.raises(ValueError, match="wants to run pathlib"):
        read_torch(path)


def pathlib_object():
    import pathlib

    return pathlib.PurePosixPath("/")


DAMAGE = {
    "storage cut": (
        lambda p: write(p, {"a": Tensor("0", (2, 3))}, {"0": NUMBERS.tobytes()[:-4]}),
        "has 20 bytes instead of 24",
    ),
    "storage missing": (
        lambda p: write(p, {"a": Tensor("0", (2, 3))}, {}),
        "data/0 is missing",
    ),
    "view too large": (
        lambda p: write(
            p, {"a": Tensor("0", (2, 3), (3, 2), count=6)}, {"0": NUMBERS.tobytes()}
        ),
        "reaches beyond its storage",
    ),
    "negative offset": (
        lambda p: write(
            p, {"a": Tensor("0", (2,), (1,), -2, count=6)}, {"0": NUMBERS.tobytes()}
        ),
        "offset, sizes and strides",
    ),
    "big endian": (
        lambda p: write(p, {}, {}, byteorder=b"big"),
        "big-endian machine",
    ),
    "old format": (
        lambda p: p.write_bytes(pickle.dumps({"a": 1})) and p,
        "no PyTorch zip checkpoint",
    ),
    "empty": (lambda p: p.write_bytes(b"") or p, "no PyTorch zip checkpoint"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_are_refused_in_one_line(name, tmp_path):
    make, message = DAMAGE[name]
    path = tmp_path / "x.pt"
    make(path)
    with pytest.raises(ValueError, match=message) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert "x.pt" in str(caught.value)


def test_random_damage_gives_the_tensors_or_one_error(tmp_path):
    raw = simple(tmp_path / "x.pt").read_bytes()
    rng = random.Random(5)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(300):
        cut = bytearray(raw)
        if rng.random() < 0.3:
            cut = cut[: rng.randrange(len(cut))]
        else:
            cut[rng.randrange(len(cut))] ^= 1 << rng.randrange(8)
        (tmp_path / "y.pt").write_bytes(cut)
        try:
            found = read_tensors(tmp_path / "y.pt")
        except ValueError:
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        # Zip entries carry a checksum: what is read is right, whatever its name.
        for array in found.values():
            assert array.tolist() in (NUMBERS.reshape(2, 3).tolist(), [1, 3, 5])
    assert min(outcomes.values()) > 10


def test_files_are_told_by_their_content(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": NUMBERS}, tmp_path / "weights.bin")
    np.testing.assert_array_equal(read_tensors(tmp_path / "weights.bin")["a"], NUMBERS)
    os.replace(simple(tmp_path / "x.pt"), tmp_path / "x.safetensors")
    assert set(read_tensors(tmp_path / "x.safetensors")) == {"a", "b"}
    (tmp_path / "z.safetensors").write_bytes(b"\0" * 40)
    with pytest.raises(ValueError, match="z.safetensors is no valid safetensors file"):
        read_tensors(tmp_path / "z.safetensors")
    with pytest.raises(ValueError, match="nowhere.pt is no file"):
        read_tensors(tmp_path / "nowhere.pt")


def test_folders_and_shards(tmp_path):
    import json

    from safetensors.numpy import save_file

    with pytest.raises(ValueError, match="should hold one weights file, found: none"):
        read_tensors(tmp_path)
    save_file({"a": NUMBERS}, tmp_path / "part-1.safetensors")
    save_file({"b": NUMBERS + 1}, tmp_path / "part-2.safetensors")
    with pytest.raises(ValueError, match=r"found: part-1\.safetensors, part-2"):
        read_tensors(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    where = {"a": "part-1.safetensors", "b": "part-2.safetensors"}
    index.write_text(json.dumps({"weight_map": where}))
    np.testing.assert_array_equal(read_tensors(tmp_path)["b"], NUMBERS + 1)
    index.write_text(json.dumps({"weight_map": where | {"c": "part-1.safetensors"}}))
    with pytest.raises(ValueError, match="promises c, no file has it"):
        read_tensors(tmp_path)
