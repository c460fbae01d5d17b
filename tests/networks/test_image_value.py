import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from diffreward.networks import UnetReward, ValueUnet
from tests.networks.reference import random_params

T = jnp.int32(7)


@pytest.fixture(autouse=True)
def _flax_promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def test_parameters_are_those_of_the_published_network():
    shapes = jax.eval_shape(
        ValueUnet().init, jax.random.key(0), jnp.zeros((64, 64, 4)), jnp.int32(0)
    )
    sizes = {k: v.size for k, v in flatten_dict(shapes["params"], sep="/").items()}
    assert sum(sizes.values()) == 4_595_713
    part = lambda *names: sum(v for k, v in sizes.items() if k.startswith(names))
    assert part("stem") == 6_304
    assert part("time_") == 20_736
    assert part("down_") == 1_286_624
    assert part("mid_") == 2 * 1_247_232
    assert part("pool_") == 787_200
    assert part("head") == 385


@pytest.mark.parity
def test_forward_equals_the_published_layers_in_torch():
    torch = pytest.importorskip("torch")
    net = ValueUnet(8, (1, 2))
    x = jax.random.normal(jax.random.key(1), (16, 16, 4))
    params = net.init(jax.random.key(0), x, T)
    noise = lambda p: p + 0.1 * jax.random.normal(jax.random.key(p.size), p.shape)
    params = jax.tree.map(noise, params)
    flat = flatten_dict(params["params"], sep="/")
    p = {k: torch.tensor(np.asarray(v)) for k, v in flat.items()}
    f = torch.nn.functional

    def kernel(name):
        w = p[f"{name}/kernel"]
        return w.permute(3, 2, 0, 1) if w.ndim == 4 else w.T

    def conv(h, name, **options):
        return f.conv2d(h, kernel(name), p[f"{name}/bias"], **options)

    def linear(v, name):
        return f.linear(v, kernel(name), p[f"{name}/bias"])

    def block(h, name):
        scale, shift = linear(f.silu(emb), f"{name}/time").chunk(2)
        out = h
        for i in (0, 1):
            w = kernel(f"{name}/conv_{i}")
            mean = w.mean((1, 2, 3), keepdim=True)
            w = (w - mean) / (w.var((1, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
            out = f.conv2d(out, w, p[f"{name}/conv_{i}/bias"], padding=1)
            norm = f"{name}/norm_{i}"
            out = f.group_norm(out, 8, p[f"{norm}/scale"], p[f"{norm}/bias"])
            if i == 0:
                out = out * (scale[:, None, None] + 1) + shift[:, None, None]
            out = f.silu(out)
        return h + out

    angles = 7 * torch.exp(-np.log(1e4) / 3 * torch.arange(4))
    emb = torch.cat([angles.sin(), angles.cos()])
    emb = linear(f.gelu(linear(emb, "time_0")), "time_1")
    h = torch.tensor(np.array(x)).permute(2, 0, 1)[None]
    h = conv(h, "stem", padding=3)
    h = block(block(h, "down_0_0"), "down_0_1")
    # "b c (h p1) (w p2) -> b (c p1 p2) h w", then a convolution of one pixel.
    h = linear(f.pixel_unshuffle(h, 2).permute(0, 2, 3, 1), "down_0").permute(0, 3, 1, 2)
    h = block(block(h, "down_1_0"), "down_1_1")
    h = conv(h, "down_1", padding=1)
    h = block(block(h, "mid_0"), "mid_1")
    for i in range(3):
        h = f.silu(conv(h, f"pool_{i}", stride=2))
    want = linear(torch.cat([h.reshape(-1), emb]), "head")[0]
    np.testing.assert_allclose(net.apply(params, x, T), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prompt", [False, True])
def test_unet_reward_is_smooth_in_the_image(prompt):
    net = UnetReward((8, 16), prompt=prompt)
    x = jax.random.normal(jax.random.key(1), (8, 8, 4))
    context = (jax.random.normal(jax.random.key(2), (5, 12)),) if prompt else ()
    params = random_params(net, x, T, *context)
    rho = jax.jit(lambda x: net.apply(params, x, T, *context))
    v = jax.random.normal(jax.random.key(3), x.shape)
    gradient, curved = jax.jit(lambda x: jax.jvp(jax.grad(rho), (x,), (v,)))(x)
    slope = jnp.vdot(gradient, v)
    h = 2e-3
    numeric = (rho(x + h * v) - rho(x - h * v)) / (2 * h)
    np.testing.assert_allclose(slope, numeric, rtol=2e-2)
    # The gradient changes with x: curvature is what the alignment loss learns from.
    assert jnp.abs(curved).max() > 1e-3


def test_a_prompt_changes_the_reward_and_is_asked_for():
    net = UnetReward((8, 16), prompt=True)
    x = jax.random.normal(jax.random.key(1), (8, 8, 4))
    one, other = jax.random.normal(jax.random.key(2), (2, 5, 12))
    params = random_params(net, x, T, one)
    a, b = jax.jit(jax.vmap(lambda c: net.apply(params, x, T, c)))(jnp.stack([one, other]))
    assert abs(a - b) > 1e-4
    with pytest.raises(ValueError, match="conditioned on a prompt"):
        net.apply(params, x, T)


def test_images_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match="multiples of 64, got 32 x 32"):
        ValueUnet().init(jax.random.key(0), jnp.zeros((32, 32, 4)), T)
    with pytest.raises(ValueError, match="multiple of 8, got 4"):
        ValueUnet(4).init(jax.random.key(0), jnp.zeros((64, 64, 4)), T)
