"""Low-rank changes as they are trained, and as a file that other readers know."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.interop import merge_lora, read_lora
from diffreward.interop.lora import save_lora
from diffreward.interop.save_pipeline import foreign_tensors
from diffreward.learn import init_low_rank, with_low_rank
from diffreward.networks.latent import Unet2D

PATTERN = r"attn[12]/(to_[qkv]|to_out_0)/kernel$"


@pytest.fixture(autouse=True)
def _flax_promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def params():
    network = Unet2D((8,), 1, (True,), (True,), (2,), groups=4)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        x, words = jnp.zeros((4, 4, 4)), jnp.zeros((3, 6))
        return network.init(jax.random.key(0), x, jnp.int32(0), words)


def moved(params, rank=2):
    """Changes whose every factor counts."""
    changes = init_low_rank(params, jax.random.key(1), PATTERN, rank)
    return jax.tree.map(lambda x: x + 0.1, changes)


def test_a_new_change_changes_nothing_and_reaches_every_matrix(params):
    changes = init_low_rank(params, jax.random.key(1), PATTERN, 2)
    jax.tree.map(np.testing.assert_array_equal, with_low_rank(params, changes), params)
    assert len(changes) == 8 * sum("attn1/to_q/kernel" in p for p in changes)

    def loss(changes):
        return sum(
            jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(with_low_rank(params, changes))
        )

    gradient = jax.grad(loss)(changes)
    assert all(np.abs(g["up"]).max() > 0 for g in gradient.values())


def test_a_change_is_the_product_of_its_factors(params):
    changes = moved(params)
    path = next(iter(changes))
    found = with_low_rank(params, changes, 0.5)
    change = np.asarray(changes[path]["down"]) @ np.asarray(changes[path]["up"])
    np.testing.assert_allclose(at(found, path), at(params, path) + 0.5 * change, rtol=1e-5)


def at(tree, path):
    for name in path.split("/"):
        tree = tree[name]
    return np.asarray(tree)


def test_the_file_says_the_same_change(params, tmp_path):
    changes = moved(params)
    save_lora(tmp_path / "lora.safetensors", changes)
    same = lambda name: name
    adapted = merge_lora(
        foreign_tensors(params, same),
        read_lora(tmp_path / "lora.safetensors")["unet"],
        1.0,
        "lora",
    )
    wanted = foreign_tensors(with_low_rank(params, changes), same)
    assert adapted.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(adapted[name], value, atol=1e-6, err_msg=name)
    plain = foreign_tensors(params, same)
    assert sum(not np.array_equal(plain[n], v) for n, v in adapted.items()) == len(changes)


def test_what_cannot_be_adapted_is_refused(params):
    with pytest.raises(ValueError, match="no matrix of the network"):
        init_low_rank(params, jax.random.key(0), "no_such", 2)
    with pytest.raises(ValueError, match="is smaller than rank=9"):
        init_low_rank(params, jax.random.key(0), PATTERN, 9)
