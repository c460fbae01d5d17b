"""NumPy's files: what they say of themselves is not believed."""

import io
import os
import zipfile

import numpy as np
import pytest

from diffreward.cli.samples import read_samples
from diffreward.data import read_arrays, write_array, write_arrays
from diffreward.files import FileValueError

X = np.arange(24, dtype=np.float32).reshape(4, 3, 2)


def test_both_kinds_are_told_by_their_bytes(tmp_path):
    write_array(tmp_path / "a.npz", X)
    write_arrays(tmp_path / "b.npy", {"x": X, "n": np.arange(4)})
    np.testing.assert_array_equal(read_arrays(tmp_path / "a.npz")["arr_0"], X)
    np.testing.assert_array_equal(read_arrays(tmp_path / "b.npy")["x"], X)
    for name in ("a.npz", "b.npy"):
        np.testing.assert_array_equal(read_samples(tmp_path / name).x, X)


@pytest.mark.parametrize("make", [np.savez, np.savez_compressed])
def test_the_one_array_of_a_file_needs_no_name(tmp_path, make):
    make(tmp_path / "a.npz", X)
    make(tmp_path / "b.npz", samples=X, group=np.array([0, 0, 7, 7]))
    make(tmp_path / "c.npz", one=X, two=X)
    np.testing.assert_array_equal(read_samples(tmp_path / "a.npz").x, X)
    assert read_samples(tmp_path / "b.npz").group.tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"c\.npz: arrays named one, two; call the one"):
        read_samples(tmp_path / "c.npz")


def test_orders_and_types_are_kept_and_objects_refused(tmp_path):
    for given in (np.asfortranarray(X), X.astype(">f8"), X.astype(np.int16), X > 3):
        np.save(tmp_path / "a.npy", given)
        [found] = read_arrays(tmp_path / "a.npy").values()
        np.testing.assert_array_equal(found, given)
        np.testing.assert_array_equal(read_samples(tmp_path / "a.npy").x, given)
    for bad in (np.array([[{}]], object), np.array([["a"]]), X.astype("datetime64[s]")):
        np.save(tmp_path / "a.npy", bad, allow_pickle=True)
        with pytest.raises(FileValueError, match=r"a\.npy: its array is of type"):
            read_arrays(tmp_path / "a.npy")
    for lossy in (np.full((2, 2), 2**24 + 1), np.full((2, 2), 1e300), np.full((2, 2), 1j)):
        np.save(tmp_path / "a.npy", lossy)
        with pytest.raises(ValueError, match=r"a\.npy"):
            read_samples(tmp_path / "a.npy")


def header(shape):
    stream = io.BytesIO()
    about = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, about)
    return stream.getvalue()


def test_a_header_that_promises_more_is_refused_before_it_is_allocated(tmp_path):
    (tmp_path / "a.npy").write_bytes(header((10**11, 8, 5)) + bytes(64))
    with pytest.raises(FileValueError, match="has 64 bytes; the file is damaged"):
        read_arrays(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header((40_000, 1000)) + bytes(160_000_000))
    assert os.stat(tmp_path / "a.npz").st_size < 10**6
    with pytest.raises(FileValueError, match=r"a\.npz: its array 'x' asks for 153 MiB"):
        read_arrays(tmp_path / "a.npz")


def test_two_arrays_of_one_name_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", header((1,)) + bytes(4))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("x.npy", header((1,)) + bytes(4))
    with pytest.raises(FileValueError, match="two arrays of one name"):
        read_arrays(tmp_path / "a.npz")
