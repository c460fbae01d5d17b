"""A regression small enough to compile in a second, whose loss uses every argument."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffreward.train import Loop, Task, optimise

BATCH = 16
WIDTH = 8


def init(key):
    inner, outer = jax.random.split(key)
    return {
        "dense": {"kernel": jax.random.normal(inner, (4, WIDTH)), "bias": jnp.zeros(WIDTH)},
        "out": jax.random.normal(outer, (WIDTH,)),
    }


def loss(params, frozen, key, batch):
    def error(key, x):
        noisy = x + 0.1 * jax.random.normal(key, x.shape, x.dtype)
        hidden = noisy @ params["dense"]["kernel"] + params["dense"]["bias"]
        return jnp.tanh(hidden) @ params["out"] - x @ frozen

    e = jax.vmap(error)(jax.random.split(key, len(batch)), batch)
    return jnp.mean(jnp.square(e)), {"mae": jnp.abs(e).mean()}


def draw(data, key):
    return data[jax.random.randint(key, (BATCH,), 0, len(data))]


TASK = Task(init, loss, draw)
DATA = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
FROZEN = np.array([1.0, -2.0, 0.5, 0.0], np.float32)

LOOP = Loop(steps_per_dispatch=10, log_every=10, checkpoint_every=20, progress=False)

run = partial(
    optimise,
    TASK,
    optax.adam(1e-2),
    data=DATA,
    frozen=FROZEN,
    seed=0,
    name="toy",
    steps=60,
    loop=LOOP,
)


def assert_same_bits(tree, other):
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def assert_close(tree, other, atol=1e-6):
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-5, atol=atol)
