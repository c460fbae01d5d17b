"""PyTorch zips, written by PyTorch where it is there and by hand where it is not."""

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from diffreward.interop import read_checkpoint, read_tensors, read_torch
from tests.fuzz.damage import damaged, outcome


class Tensor:
    """Pickles itself as PyTorch pickles a tensor."""

    def __init__(self, key, shape, stride=None, offset=0, count=None, kind="Float"):
        self.key, self.shape, self.offset, self.kind = key, shape, offset, kind
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
            self.write(pickle.GLOBAL + b"torch\n%bStorage\n" % obj.kind.encode())
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


@pytest.mark.parity
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


def test_numbers_of_numpy_and_plain_containers_stand_beside_tensors(tmp_path):
    versioned = OrderedDict(w=Tensor("0", (2, 3)))
    versioned._metadata = OrderedDict(version=1)  # as PyTorch's modules leave it
    columns = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    saved = {
        "state": versioned,
        "loss": np.float32(1.5),
        "step": np.int64(7),
        "best": {"mean": columns, "again": columns, "flags": np.array([True, False])},
        "names": {"a"},
        "plain": [1, 2.5, "x", None, True, b"y", (1, 2), 2**70],
    }
    found = read_torch(write(tmp_path / "x.pt", saved, {"0": NUMBERS.tobytes()}))
    np.testing.assert_array_equal(found["state"]["w"], NUMBERS.reshape(2, 3))
    assert (found["loss"], found["step"]) == (1.5, 7)
    assert found["loss"].dtype == np.float32
    np.testing.assert_array_equal(found["best"]["mean"], columns)
    assert found["best"]["again"] is found["best"]["mean"]
    assert found["best"]["flags"].tolist() == [True, False]
    assert (found["names"], found["plain"]) == (["a"], saved["plain"])


def raw(path, body, storages=()):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", body)
        for key, data in dict(storages).items():
            archive.writestr(f"archive/data/{key}", data)
    return path


def deep_key(levels):
    """A tuple of two references to such a tuple, and so on: its hash takes 2^levels."""
    body = b"\x80\x02}K\x01q\x00"
    for i in range(levels):
        body += b"0h%ch%c\x86q%c" % (i, i, i + 1)
    return body + b"K\x01s."


PROGRAMS = {
    "a class that is not known": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
    "Metadata alone": b"comegaconf.base\nMetadata\n.",
    "by what is no table": b"\x80\x02comegaconf.base\nMetadata\n)\x81K\x01b.",
    "calls what is no function": b"comegaconf.base\nMetadata\n(tR.",
    "names a type by what is no text": b"cdill._dill\n_load_type\n(K\x01tR.",
    "step INST": b"(icollections\nOrderedDict\n.",
    "step OBJ": b"(ccollections\nOrderedDict\no.",
    "step EXT1": b"\x82\x01.",
    "step PERSID": b"P0\n.",
    "OrderedDict alone": b"ccollections\nOrderedDict\n.",
    "scalar alone": b"cnumpy.core.multiarray\nscalar\n.",
    "is not its own": b"ccollections\nOrderedDict\n(N}X\x01\0\0\0aK\x01stb.",
    "a tuple as a key": deep_key(60),
    "as number 80,000,000": b"\x80\x02}r" + struct.pack("<I", 80_000_000) + b".",
    "no function of ours": b"\x80\x02K\x01)R.",
    "takes more than it made": b"\x80\x02K\x01(0.",
    "other than plain numbers": b"\x80\x02cnumpy\ndtype\nX\x01\0\0\0O\x85R.",
    "NumPy number of 2 bytes": pickle.dumps(np.float32(1), 4).replace(
        b"C\x04\0\0\x80\x3f", b"C\x02\0\0"
    ),
    "ends in the middle": b"\x80\x02K\x01K\x02.",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_steps_that_build_no_plain_data_end_the_reading(name, tmp_path):
    path = raw(tmp_path / "x.pt", PROGRAMS[name])
    message = outcome(lambda: read_torch(path), path, memory=16 * 2**20)
    assert message is not None
    assert name in message


def wide(count):
    return {f"t{i}": Tensor("0", (10**6,)) for i in range(count)}


AMPLIFIED = {
    "a stride of 0": lambda p: write(
        p, {"a": Tensor("0", (4 * 10**8,), (0,), count=6)}, {"0": NUMBERS.tobytes()}
    ),
    "views of one storage": lambda p: write(p, wide(300), {"0": bytes(4 * 10**6)}),
    "one text encoded often": lambda p: raw(
        p,
        b"\x80\x02c_codecs\nencode\nq\x00X"
        + struct.pack("<I", 2**20)
        + b"a" * 2**20
        + b"X\x06\0\0\0latin1\x86q\x01("
        + b"h\x00h\x01R" * 300
        + b"l.",
    ),
    "sets": lambda p: raw(p, b"\x80\x04(" + b"\x8f" * 10**6 + b"l."),
}


@pytest.mark.parametrize("name", AMPLIFIED)
def test_small_files_get_little_memory(name, tmp_path):
    path = AMPLIFIED[name](tmp_path / "x.pt")
    message = outcome(lambda: read_torch(path), path)
    assert message is not None
    assert "set DIFFREWARD_MEMORY" in message


def test_compressed_and_overlapping_entries_are_refused(tmp_path):
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02](" + b"N" * 10**7 + b"e.")
    with pytest.raises(ValueError, match=r"x\.pt has compressed entries"):
        read_torch(path)
    # Thirty names in the directory for one storage of the file.
    storages = {f"{i:02}": bytes(10**5) if not i else b"" for i in range(30)}
    data = write(path, {}, storages).read_bytes()
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
    directory = bytearray(data[start:])
    one = directory.index(b"PK\x01\x02", directory.index(b"archive/byteorder"))
    entry = directory[one : directory.index(b"PK\x01\x02", one + 4)]
    for i in range(1, 30):
        place = directory.index(b"archive/data/%02d" % i) - 46
        directory[place : place + 46] = entry[:46]
    path.write_bytes(data[:start] + directory)
    with pytest.raises(ValueError, match=r"x\.pt cannot be read: its entries overlap"):
        read_torch(path)


def test_a_storage_has_one_type(tmp_path):
    both = {"a": Tensor("0", (6,)), "b": Tensor("0", (6,), kind="Int")}
    path = write(tmp_path / "x.pt", both, {"0": NUMBERS.tobytes()})
    with pytest.raises(ValueError, match=r"x\.pt .* its storage '0' has two types"):
        read_torch(path)


def test_compiled_programs_are_named(tmp_path):
    path = raw(tmp_path / "x.pt", b"\x80\x02}.")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/constants.pkl", b"\x80\x02}.")
    with pytest.raises(ValueError, match=r"x\.pt is a compiled program \(TorchScript\)"):
        read_torch(path)


def test_random_damage_gives_the_tensors_or_one_error(tmp_path):
    whole = simple(tmp_path / "x.pt").read_bytes()
    path, outcomes = tmp_path / "y.pt", {"read": 0, "refused": 0}
    for _, data in damaged(whole, np.random.default_rng(5), 300):
        path.write_bytes(data)
        found = {}
        if outcome(lambda found=found: found.update(read_tensors(path)), path):
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
    with pytest.raises(FileNotFoundError, match="nowhere.pt does not exist"):
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
