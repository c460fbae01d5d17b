"""PyTorch checkpoints written without PyTorch."""

import io
import pickle
import zipfile
from collections import OrderedDict

import numpy as np

STORAGES = {"float32": "Float", "float16": "Half", "float64": "Double", "int64": "Long"}


class _Tensor:
    def __init__(self, key, array):
        self.key, self.array = key, array


class _Writer(pickle._Pickler):
    """Names PyTorch's functions as PyTorch does."""

    def save(self, obj, *args, **kwargs):
        if not isinstance(obj, _Tensor):
            return super().save(obj, *args, **kwargs)
        self.write(b"ctorch._utils\n_rebuild_tensor_v2\n((")
        super().save("storage")
        self.write(b"ctorch\n%sStorage\n" % STORAGES[str(obj.array.dtype)].encode())
        for part in (obj.key, "cpu", obj.array.size):
            super().save(part)
        self.write(pickle.TUPLE + pickle.BINPERSID)
        stride = tuple(s // obj.array.itemsize for s in obj.array.strides)
        for part in (0, obj.array.shape, stride, False):
            super().save(part)
        super().save(OrderedDict())
        return self.write(pickle.TUPLE + pickle.REDUCE)


def save_torch(value, path):
    """Writes dictionaries of arrays and plain values, as ``torch.save`` would tensors."""
    storages = []

    def marked(value):
        if isinstance(value, dict):
            return {k: marked(v) for k, v in value.items()}
        if isinstance(value, np.ndarray):
            storages.append(np.ascontiguousarray(value))
            return _Tensor(str(len(storages) - 1), storages[-1])
        return value

    body = io.BytesIO()
    _Writer(body, protocol=2).dump(marked(value))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", body.getvalue())
        archive.writestr("archive/byteorder", b"little")
        for i, array in enumerate(storages):
            archive.writestr(f"archive/data/{i}", array.tobytes())
    return path
