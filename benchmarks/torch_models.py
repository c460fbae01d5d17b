"""PyTorch counterparts of the project's networks, for timing and parity checks.

Plain modules in PyTorch's own layout (batch, channels, length); inputs and outputs are
(batch, horizon, dim) like the project's.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def sinusoidal_embedding(t: Tensor, dim: int) -> Tensor:
    """Embeds integer levels of shape (batch,) as (batch, dim)."""
    half = dim // 2
    freqs = torch.exp(-math.log(1e4) / (half - 1) * torch.arange(half))
    angles = t[:, None].float() * freqs
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class TimeMLP(nn.Module):
    """Sinusoidal embedding, then two linear layers."""

    def __init__(self, dim: int, act: nn.Module):
        super().__init__()
        self.dim = dim
        self.net = nn.Sequential(nn.Linear(dim, 4 * dim), act, nn.Linear(4 * dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        """Returns the embedding of t."""
        return self.net(sinusoidal_embedding(t, self.dim))


def _conv_block(c_in: int, c_out: int, act: nn.Module) -> nn.Sequential:
    conv = nn.Conv1d(c_in, c_out, 5, padding=2)
    return nn.Sequential(conv, nn.GroupNorm(8, c_out), act)


class ResBlock(nn.Module):
    """Two convolution blocks with the time embedding added between them."""

    def __init__(self, c_in: int, c_out: int, time_dim: int, act: nn.Module):
        super().__init__()
        self.block_0 = _conv_block(c_in, c_out, act)
        self.block_1 = _conv_block(c_out, c_out, act)
        self.time = nn.Sequential(act, nn.Linear(time_dim, c_out))
        self.skip = nn.Conv1d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Applies the block."""
        h = self.block_0(x) + self.time(emb)[:, :, None]
        return self.block_1(h) + self.skip(x)


class LinearAttention(nn.Module):
    """Pre-normalised linear attention with a residual connection."""

    def __init__(self, channels: int, heads: int = 4, head_dim: int = 32):
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Conv1d(channels, 3 * heads * head_dim, 1, bias=False)
        self.out = nn.Conv1d(heads * head_dim, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Applies attention along the length."""
        b, _, length = x.shape
        normed = self.norm(x.mT).mT
        shape = (b, self.heads, self.head_dim, length)
        q, k, v = (a.reshape(shape) for a in self.qkv(normed).chunk(3, dim=1))
        context = k.softmax(-1) @ v.mT
        out = context.mT @ (q * self.head_dim**-0.5)
        return x + self.out(out.reshape(b, -1, length))


class TemporalUnet(nn.Module):
    """Diffuser's temporal U-Net (Janner et al., 2022)."""

    def __init__(
        self,
        dim_in: int,
        dim: int = 32,
        dim_mults: Sequence[int] = (1, 2, 4, 8),
        attention: bool = False,
    ):
        super().__init__()
        act = nn.Mish()
        widths = [dim_in, *(dim * m for m in dim_mults)]
        pairs = list(zip(widths[:-1], widths[1:], strict=True))

        def level(c_in: int, c_out: int, resample: nn.Module) -> nn.ModuleDict:
            attend = LinearAttention(c_out) if attention else nn.Identity()
            return nn.ModuleDict(
                {
                    "res_0": ResBlock(c_in, c_out, dim, act),
                    "res_1": ResBlock(c_out, c_out, dim, act),
                    "attn": attend,
                    "resample": resample,
                }
            )

        self.time = TimeMLP(dim, act)
        self.downs = nn.ModuleList()
        for i, (c_in, c_out) in enumerate(pairs):
            last = i == len(pairs) - 1
            down = nn.Identity() if last else nn.Conv1d(c_out, c_out, 3, 2, 1)
            self.downs.append(level(c_in, c_out, down))
        self.mid_0 = ResBlock(widths[-1], widths[-1], dim, act)
        self.mid_attn = LinearAttention(widths[-1]) if attention else nn.Identity()
        self.mid_1 = ResBlock(widths[-1], widths[-1], dim, act)
        self.ups = nn.ModuleList()
        for c_in, c_out in reversed(pairs[1:]):
            up = nn.ConvTranspose1d(c_in, c_in, 4, 2, 1)
            self.ups.append(level(2 * c_out, c_in, up))
        self.final = _conv_block(widths[1], widths[1], act)
        self.head = nn.Conv1d(widths[1], dim_in, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Maps (batch, horizon, dim) and (batch,) to the shape of x."""
        emb = self.time(t)
        h, skips = x.mT, []
        for level in self.downs:
            h = level["attn"](level["res_1"](level["res_0"](h, emb), emb))
            skips.append(h)
            h = level["resample"](h)
        h = self.mid_1(self.mid_attn(self.mid_0(h, emb)), emb)
        for level in self.ups:
            h = torch.cat([h, skips.pop()], dim=1)
            h = level["attn"](level["res_1"](level["res_0"](h, emb), emb))
            h = level["resample"](h)
        return self.head(self.final(h)).mT


class ValueFunction(nn.Module):
    """The paper's locomotion reward: a U-Net's downward half with a scalar head."""

    def __init__(
        self,
        dim_in: int,
        horizon: int,
        dim: int = 4,
        dim_mults: Sequence[int] = (16, 16, 32, 32),
        act: nn.Module | None = None,
    ):
        super().__init__()
        act = act or nn.Mish()
        widths = [dim_in, *(dim * m for m in dim_mults)]
        self.time = TimeMLP(dim, act)
        self.levels = nn.ModuleList()
        for c_in, c_out in zip(widths[:-1], widths[1:], strict=True):
            blocks = [ResBlock(c_in, c_out, dim, act), ResBlock(c_out, c_out, dim, act)]
            down = nn.Conv1d(c_out, c_out, 3, 2, 1)
            self.levels.append(nn.ModuleList([*blocks, down]))
            horizon = (horizon + 1) // 2
        for c_in, c_out in (
            (widths[-1], widths[-1] // 2),
            (widths[-1] // 2, widths[-1] // 4),
        ):
            down = nn.Conv1d(c_out, c_out, 3, 2, 1)
            self.levels.append(nn.ModuleList([ResBlock(c_in, c_out, dim, act), down]))
            horizon = (horizon + 1) // 2
        flat = widths[-1] // 4 * horizon + dim
        self.head = nn.Sequential(nn.Linear(flat, flat // 2 - dim // 2), act)
        self.head.append(nn.Linear(flat // 2 - dim // 2, 1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Maps (batch, horizon, dim) and (batch,) to (batch,)."""
        emb = self.time(t)
        h = x.mT
        for level in self.levels:
            assert isinstance(level, nn.ModuleList)
            for block in level[:-1]:
                h = block(h, emb)
            h = level[-1](h)
        return self.head(torch.cat([h.flatten(1), emb], dim=-1))[:, 0]


class WindowReward(nn.Module):
    """Mean of a small MLP over contiguous windows of the trajectory."""

    def __init__(
        self, dim_in: int, window: int, hidden: Sequence[int], act: nn.Module | None = None
    ):
        super().__init__()
        act = act or nn.Mish()
        self.window = window
        self.time = TimeMLP(32, act)
        widths = [window * dim_in + 32, *hidden, 1]
        layers: list[nn.Module] = []
        for c_in, c_out in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Linear(c_in, c_out), act]
        self.body = nn.Sequential(*layers, nn.Linear(1, 1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Maps (batch, horizon, dim) and (batch,) to (batch,)."""
        windows = x.reshape(x.shape[0], -1, self.window * x.shape[2])
        emb = self.time(t)[:, None, :].expand(-1, windows.shape[1], -1)
        return self.body(torch.cat([windows, emb], dim=-1)).mean(dim=(1, 2))
