"""Loop-by-loop NumPy layers in float64, on arrays laid out (length, channels)."""

import jax
import numpy as np


def random_params(module, *args, seed=0):
    """Parameters of order one, none of them special (a scale of 1, a shift of 0).

    Drawn by NumPy: compiling the initialisers of a U-Net takes longer than any test.
    """
    rng = np.random.default_rng(seed)

    def draw(leaf):
        fan_in = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 4
        value = rng.standard_normal(leaf.shape) / np.sqrt(fan_in)
        return jax.numpy.asarray(value, leaf.dtype)

    return jax.tree.map(draw, jax.eval_shape(module.init, jax.random.key(0), *args))


def conv(x, kernel, stride=1):
    """Every output sums taps that fall inside the input; padding is taps // 2."""
    taps, _, c_out = kernel.shape
    length = len(x)
    out = np.zeros(((length + 2 * (taps // 2) - taps) // stride + 1, c_out))
    for m in range(len(out)):
        for k in range(taps):
            row = m * stride + k - taps // 2
            if 0 <= row < length:
                out[m] += x[row] @ kernel[k]
    return out


def conv_transposed(x, kernel):
    """Scatters input m over outputs 2m - 1 ... 2m + 2, as PyTorch (padding 1) does."""
    out = np.zeros((2 * len(x), kernel.shape[2]))
    for m in range(len(x)):
        for k in range(4):
            if 0 <= 2 * m - 1 + k < len(out):
                out[2 * m - 1 + k] += x[m] @ kernel[k]
    return out


def group_norm(x, scale, shift, groups=8):
    out = np.zeros_like(x)
    size = x.shape[1] // groups
    for g in range(groups):
        part = x[:, g * size : (g + 1) * size]
        normed = (part - part.mean()) / np.sqrt(part.var() + 1e-5)
        out[:, g * size : (g + 1) * size] = normed
    return out * scale + shift


def mish(x):
    return x * np.tanh(np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0))


def linear(p, x):
    return x @ p["kernel"] + p.get("bias", 0.0)


def conv_block(p, x):
    h = conv(x, p["conv"]["kernel"]) + p["conv"]["bias"]
    return mish(group_norm(h, p["norm"]["scale"], p["norm"]["shift"]))


def residual_block(p, x, emb):
    h = conv_block(p["block_0"], x) + linear(p["time"], mish(emb))
    h = conv_block(p["block_1"], h)
    return h + (linear(p["skip"], x) if "skip" in p else x)


def linear_attention(p, x, heads=4, dim=32):
    mean, var = x.mean(1, keepdims=True), x.var(1, keepdims=True)
    normed = (x - mean) / np.sqrt(var + 1e-5) * p["norm"]["scale"] + p["norm"]["bias"]
    qkv = linear(p["qkv"], normed)
    inner = heads * dim
    out = np.zeros((len(x), inner))
    for h in range(heads):
        q, k, v = (qkv[:, i * inner + h * dim :][:, :dim] for i in range(3))
        weights = np.exp(k - k.max(0))
        weights = weights / weights.sum(0)
        for row in range(len(x)):
            similarity = weights @ (q[row] / np.sqrt(dim))
            out[row, h * dim : (h + 1) * dim] = similarity @ v
    return x + linear(p["out"], out)
