"""The sizes of the paper's maze reward, which its tensors tell only in part."""

from itertools import pairwise

import numpy as np
import pytest

from diffreward.interop import load_single_step


def tensors(window=4, dim=6, time_dim=8, hidden=(16, 8)):
    rng = np.random.default_rng(0)
    sizes = [window * dim + time_dim, *hidden, 1, 1]
    layers = {
        "time_mlp.1": (4 * time_dim, time_dim),
        "time_mlp.3": (time_dim, 4 * time_dim),
    }
    layers |= {f"layers.{i}": (b, a) for i, (a, b) in enumerate(pairwise(sizes))}
    found = {}
    for name, shape in layers.items():
        found[f"{name}.weight"] = rng.normal(size=shape).astype(np.float32)
        found[f"{name}.bias"] = np.zeros(shape[0], np.float32)
    return found


def test_windows_of_the_right_size_are_read():
    assert load_single_step(tensors(), 4, 6).dim == 6


@pytest.mark.parametrize(("window", "dim"), [(8, 6), (4, 5), (5, 6), (2, 6)])
def test_windows_of_another_size_are_refused(window, dim):
    with pytest.raises(ValueError, match=f"of 24 numbers, not of {window} steps of {dim}"):
        load_single_step(tensors(), window, dim)


def test_another_network_is_refused():
    flat = tensors()
    flat["layers.1.weight"] = flat["layers.1.weight"][:, :3]
    with pytest.raises(ValueError, match="no single-step reward: layers"):
        load_single_step(flat, 4, 6)
