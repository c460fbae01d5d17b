"""What every NumPy program of a card begins with: operations that NumPy has not."""

HELPERS = """
import math

def _logistic(x):
    return 1 / (1 + np.exp(-x))


def _erf(x):
    return np.vectorize(math.erf, [x.dtype])(x)


def _erfc(x):
    return np.vectorize(math.erfc, [x.dtype])(x)


def _broadcast(x, shape, dims):
    lifted = [1] * len(shape)
    for size, dim in zip(np.shape(x), dims):
        lifted[dim] = size
    return np.broadcast_to(np.reshape(x, lifted), shape)


def _dot(a, b, contract, batch):
    if not batch[0]:
        return np.tensordot(a, b, contract)
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    left = [next(letters) for _ in range(a.ndim)]
    right = [next(letters) for _ in range(b.ndim)]
    for i, j in [*zip(*contract), *zip(*batch)]:
        right[j] = left[i]
    free = lambda names, used: [c for i, c in enumerate(names) if i not in used]
    out = [left[i] for i in batch[0]]
    out += free(left, (*contract[0], *batch[0])) + free(right, (*contract[1], *batch[1]))
    spec = "".join(left) + "," + "".join(right) + "->" + "".join(out)
    return np.einsum(spec, a, b, optimize=True)


def _pad(x, value, low, high, gaps):
    # A negative width cuts; gaps lie between neighbours.
    sizes = [n + max(n - 1, 0) * g for n, g in zip(x.shape, gaps)]
    starts = [max(a, 0) for a in low]
    whole = [a + n + max(b, 0) for a, n, b in zip(starts, sizes, high)]
    padded = np.full(whole, value, x.dtype)
    rows = [slice(a, a + n, g + 1) for a, n, g in zip(starts, sizes, gaps)]
    padded[tuple(rows)] = x
    ends = [n + min(b, 0) for n, b in zip(whole, high)]
    return padded[tuple(slice(max(-a, 0), b) for a, b in zip(low, ends))]


def _conv(x, kernel, strides, padding, spread, dilation, groups):
    # x: (batch, *space, c_in), kernel: (*taps, c_in / groups, c_out).
    if groups > 1:
        parts = zip(np.split(x, groups, -1), np.split(kernel, groups, -1))
        rest = (strides, padding, spread, dilation, 1)
        return np.concatenate([_conv(*part, *rest) for part in parts], -1)
    low, high = zip((0, 0), *padding, (0, 0))
    x = _pad(x, 0, low, high, (0, *(s - 1 for s in spread), 0))
    taps = kernel.shape[:-2]
    dims = list(zip(x.shape[1:-1], taps, strides, dilation))
    sizes = [(n - (k - 1) * d - 1) // s + 1 for n, k, s, d in dims]
    total = 0
    for tap in np.ndindex(*taps):
        ends = [i * d + (m - 1) * s + 1 for i, m, (_, _, s, d) in zip(tap, sizes, dims)]
        rows = [slice(i * d, e, s) for i, e, (_, _, s, d) in zip(tap, ends, dims)]
        total = total + np.matmul(x[(slice(None), *rows)], kernel[tap])
    return total


def _window(x, starts, sizes):
    # A window that would leave the array is moved inside.
    firsts = [min(max(int(a), 0), n - k) for a, n, k in zip(starts, x.shape, sizes)]
    return tuple(slice(a, a + k) for a, k in zip(firsts, sizes))


def _update(x, part, starts):
    x = np.array(x)
    x[_window(x, starts, np.shape(part))] = part
    return x
"""
