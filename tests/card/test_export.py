import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.card import NotExportable, numpy_source
from diffreward.card.numpy_export import HELPERS
from diffreward.networks import EnergyDifference, TemporalUnet, ValueUnet

X = np.random.default_rng(2).normal(0, 2, (4, 6)).astype(np.float32)


def run(fn, params, *inputs):
    """The NumPy program's value."""
    params = {k: np.asarray(v) for k, v in params.items()}
    body, constants = numpy_source(fn, params, *inputs)
    names = ", ".join(f"x{i}" for i in range(len(inputs)))
    scope = {"np": np, "W": params | constants}
    exec(f"{HELPERS}\n\ndef network({names}):\n{body}", scope)
    return scope["network"](*map(np.asarray, inputs))


def conv(x, kernel, **options):
    """Of an image (rows, columns, 2) made of x, by six numbers of it per filter."""
    names = ("NHWC", "HWIO", "NHWC")
    image = jnp.tile(x[None, :, :, None], (1, 1, 1, 2))
    return jax.lax.conv_general_dilated(
        image, kernel, padding=[(1, 2), (0, 1)], dimension_numbers=names, **options
    )


KERNEL = np.random.default_rng(3).normal(0, 1, (2, 3, 2, 4)).astype(np.float32)
OPERATIONS = {
    "unstack": lambda x: sum(jnp.unstack(x, axis=1)),
    "split, stack": lambda x: jnp.stack(jnp.split(x, 3, 1)[::-1], 1),
    "pad and cut": lambda x: jax.lax.pad(x, np.float32(3), [(-1, 2, 1), (2, -3, 0)]),
    "strided, reversed": lambda x: x[::2, ::-1],
    "argument out of order": lambda x: x.T @ jnp.arange(24.0).reshape(4, 6),
    "batched product": lambda x: jnp.einsum("ab,acb->ca", x, jnp.ones((4, 3, 6))),
    "softmax": jax.nn.softmax,
    "exact gelu": lambda x: jax.nn.gelu(x, approximate=False) + jax.lax.erf(x),
    "elementwise": lambda x: jnp.cbrt(jnp.tan(x)) + jnp.round(x) * jnp.clip(x, -1, 1),
    "whole numbers": lambda x: x.astype(jnp.int32) // 2 % 3 * jnp.arange(-3, 3)[None],
    "truth": lambda x: ((x > 0) & ~(x > 1) | (x != x)).any(0),
    "constant rows": lambda x: x * jnp.asarray([[0.0, -0.0, 1, np.inf, 2, 3]]),
    "a slice at a computed place": lambda x: jax.lax.dynamic_slice_in_dim(
        x, (x[0, 0] < 99).astype(jnp.int32), 3
    ),
    "loop": lambda x: jax.lax.scan(lambda c, row: (c + row, c * row), x[0], x)[1],
    "loop in loop": lambda x: jax.lax.map(
        lambda row: jax.lax.fori_loop(0, 3, lambda i, v: v * row + i, row), x
    ),
    "custom rule": lambda x: jax.nn.relu(jax.nn.logsumexp(x, axis=1)),
    "plain convolution": lambda x: conv(x, KERNEL, window_strides=(1, 1)),
    "strides": lambda x: conv(x, KERNEL, window_strides=(2, 1)),
    "dilations": lambda x: conv(
        x, KERNEL, window_strides=(1, 2), lhs_dilation=(2, 1), rhs_dilation=(1, 2)
    ),
    "groups": lambda x: conv(
        x, KERNEL[:, :, :1], window_strides=(1, 1), feature_group_count=2
    ),
    "gradient": jax.grad(lambda x: conv(jnp.sin(x), KERNEL, window_strides=(2, 2)).sum()),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_has_the_value_that_jax_gives(name):
    fn = lambda _, x: OPERATIONS[name](x)
    got, want = run(fn, {}, X), OPERATIONS[name](jnp.asarray(X))
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-5)


def test_an_operation_that_did_not_exist_when_this_was_written():
    # As a new release of JAX may bring it: a name that no table here can hold.
    new = jax.extend.core.Primitive("swirl")
    new.def_abstract_eval(lambda x, *, power: x)
    form = jax.interpreters.mlir.lower_fun(lambda x, *, power: jnp.sin(x) ** power, False)
    jax.interpreters.mlir.register_lowering(new, form)
    got = run(lambda p, x: new.bind(x * p["a"][None], power=3), {"a": X[0]}, X)
    np.testing.assert_allclose(got, np.sin(X * X[0]) ** 3, rtol=1e-4, atol=1e-6)


BYTES = np.arange(6, dtype=np.uint8)
REFUSED = {
    "'sort'": jnp.sort,
    "'gather'": lambda x: x[jnp.asarray([2, 0]), jnp.asarray([1, 1])],
    "'reduce'": lambda x: jnp.argmax(x, 1),
    "'case'": lambda x: jax.lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x),
    "custom_call .*callback": lambda x: jax.pure_callback(np.sin, x, x),
    "bf16>, which NumPy": lambda x: x.astype(jnp.bfloat16).astype(jnp.float32) * 2,
    "constant of type uint8": lambda x: x * jnp.asarray(BYTES).astype("f")[None],
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_has_no_numpy_form_is_refused_by_name(message):
    with pytest.raises(NotExportable, match=message):
        numpy_source(lambda _, x: REFUSED[message](x), {}, jnp.asarray(X))


def test_an_attribute_that_is_not_known_is_refused(monkeypatch):
    from diffreward.card import numpy_export

    fn = lambda _, x: jnp.tanh(x)
    named = numpy_export._attributes
    extra = lambda op: named(op) | ({"wrapped": 1} if "tanh" in op.operation.name else {})
    monkeypatch.setattr(numpy_export, "_attributes", extra)
    with pytest.raises(NotExportable, match="uses 'tanh' with wrapped, which has no NumPy"):
        numpy_source(fn, {}, jnp.asarray(X))


NETWORKS = {
    "energies of U-Nets": (EnergyDifference(TemporalUnet(8, (1, 2))), (8, 6)),
    "images": (ValueUnet(dim=8, mults=(1, 2)), (16, 16, 3)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_with_loops_and_with_images(name):
    network, shape = NETWORKS[name]
    rng = np.random.default_rng(1)
    x = rng.normal(0, 1, (3, *shape)).astype(np.float32)
    t = np.arange(3, dtype=np.int32)
    tree = jax.eval_shape(network.init, jax.random.key(0), x[0], t[0])
    params = jax.tree.map(lambda s: rng.normal(0, 0.2, s.shape).astype("f"), tree)
    leaves, form = jax.tree.flatten(params)
    names = [f"p{i:04d}" for i in range(len(leaves))]

    def batched(weights, x, t):
        tree = jax.tree.unflatten(form, [weights[name] for name in names])
        return jax.vmap(lambda x, t: network.apply(tree, x, t))(x, t)

    weights = dict(zip(names, leaves, strict=True))
    want = jax.jit(batched)(weights, x, t)
    np.testing.assert_allclose(run(batched, weights, x, t), want, rtol=1e-5, atol=1e-5)
