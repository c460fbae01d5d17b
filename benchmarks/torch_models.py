"""PyTorch counterparts of the project's networks, for timing and parity checks.

Plain modules in PyTorch's own layout (batch, channels, length); inputs and outputs are
(batch, horizon, dim) like the project's. Submodules bear the names of the Flax
parameters, so that `load_flax` can copy weights by name.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class TimeMLP(nn.Module):
    """Sinusoidal embedding, then two linear layers."""

    def __init__(self, dim: int, act: nn.Module):
        super().__init__()
        half = dim // 2
        freqs = torch.exp(-math.log(1e4) / (half - 1) * torch.arange(half))
        self.register_buffer("freqs", freqs)
        self.hidden = nn.Linear(dim, 4 * dim)
        self.act = act
        self.out = nn.Linear(4 * dim, dim)

    def forward(self, t: Tensor) -> Tensor:
        """Embeds integer levels of shape (batch,) as (batch, dim)."""
        angles = t[:, None].float() * self.get_buffer("freqs")
        embedding = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return self.out(self.act(self.hidden(embedding)))


class ConvBlock(nn.Module):
    """Convolution, group normalisation, activation."""

    def __init__(self, c_in: int, c_out: int, act: nn.Module):
        super().__init__()
        self.conv = nn.Conv1d(c_in, c_out, 5, padding=2)
        self.norm = nn.GroupNorm(8, c_out)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Applies the block."""
        return self.act(self.norm(self.conv(x)))


class ResBlock(nn.Module):
    """Two convolution blocks with the time embedding added between them."""

    def __init__(self, c_in: int, c_out: int, time_dim: int, act: nn.Module):
        super().__init__()
        self.block_0 = ConvBlock(c_in, c_out, act)
        self.block_1 = ConvBlock(c_out, c_out, act)
        self.act = act
        self.time = nn.Linear(time_dim, c_out)
        self.skip = nn.Conv1d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Applies the block."""
        h = self.block_0(x) + self.time(self.act(emb))[:, :, None]
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
        batch, _, length = x.shape
        normed = self.norm(x.mT).mT
        shape = (batch, self.heads, self.head_dim, length)
        q, k, v = (a.reshape(shape) for a in self.qkv(normed).chunk(3, dim=1))
        context = k.softmax(-1) @ v.mT
        out = context.mT @ (q * self.head_dim**-0.5)
        return x + self.out(out.reshape(batch, -1, length))


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
        widths = [dim * m for m in dim_mults]
        self.levels = len(widths)
        self.time = TimeMLP(dim, act)

        def level(name: str, c_in: int, c_out: int) -> None:
            self.add_module(f"{name}_res_0", ResBlock(c_in, c_out, dim, act))
            self.add_module(f"{name}_res_1", ResBlock(c_out, c_out, dim, act))
            attend = LinearAttention(c_out) if attention else nn.Identity()
            self.add_module(f"{name}_attn", attend)

        for i, (c_in, c_out) in enumerate(zip([dim_in, *widths[:-1]], widths, strict=True)):
            level(f"down_{i}", c_in, c_out)
            if i < self.levels - 1:
                down = nn.Conv1d(c_out, c_out, 3, 2, 1)
                self.add_module(f"down_{i}_resample", down)
        level("mid", widths[-1], widths[-1])
        for i in reversed(range(1, self.levels)):
            level(f"up_{i}", 2 * widths[i], widths[i - 1])
            up = nn.ConvTranspose1d(widths[i - 1], widths[i - 1], 4, 2, 1)
            self.add_module(f"up_{i}_resample", up)
        self.final = ConvBlock(widths[0], widths[0], act)
        self.head = nn.Conv1d(widths[0], dim_in, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Maps (batch, horizon, dim) and (batch,) to the shape of x."""
        emb = self.time(t)
        part = self.get_submodule
        h, skips = x.mT, []
        for i in range(self.levels):
            h = part(f"down_{i}_res_0")(h, emb)
            h = part(f"down_{i}_attn")(part(f"down_{i}_res_1")(h, emb))
            skips.append(h)
            if i < self.levels - 1:
                h = part(f"down_{i}_resample")(h)
        h = part("mid_attn")(part("mid_res_0")(h, emb))
        h = part("mid_res_1")(h, emb)
        for i in reversed(range(1, self.levels)):
            h = part(f"up_{i}_res_0")(torch.cat([h, skips[i]], dim=1), emb)
            h = part(f"up_{i}_attn")(part(f"up_{i}_res_1")(h, emb))
            h = part(f"up_{i}_resample")(h)
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
        widths = [dim * m for m in dim_mults]
        mids = [widths[-1] // 2, widths[-1] // 4]
        self.plan: list[list[str]] = []
        self.time = TimeMLP(dim, act)
        channels = dim_in
        for i, width in enumerate(widths + mids):
            if i < len(widths):
                names = [f"res_{i}_0", f"res_{i}_1", f"down_{i}"]
            else:
                names = [f"mid_{i - len(widths)}", f"mid_down_{i - len(widths)}"]
            for name in names[:-1]:
                self.add_module(name, ResBlock(channels, width, dim, act))
                channels = width
            self.add_module(names[-1], nn.Conv1d(width, width, 3, 2, 1))
            self.plan.append(names)
            horizon = (horizon + 1) // 2
        flat = channels * horizon
        self.hidden = nn.Linear(flat + dim, flat // 2)
        self.act = act
        self.head = nn.Linear(flat // 2, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Maps (batch, horizon, dim) and (batch,) to (batch,)."""
        emb = self.time(t)
        h = x.mT
        for *residual, down in self.plan:
            for name in residual:
                h = self.get_submodule(name)(h, emb)
            h = self.get_submodule(down)(h)
        features = torch.cat([h.flatten(1), emb], dim=-1)
        return self.head(self.act(self.hidden(features)))[:, 0]


class WindowReward(nn.Module):
    """Mean of a small MLP over contiguous windows of the trajectory."""

    def __init__(self, dim_in: int, window: int, hidden: Sequence[int], act: nn.Module):
        super().__init__()
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


def load_flax(module: nn.Module, params: Mapping[str, Any]) -> None:
    """Copies the parameters of the Flax network of the same name, every one of them.

    Raises:
        KeyError: if a parameter has no counterpart.
        ValueError: if the counterpart has another shape, or none was copied into it.
    """
    missing = dict(module.named_parameters())

    def copy(target: nn.Module, tree: Mapping[str, Any], path: str) -> None:
        for name, leaf in tree.items():
            if isinstance(leaf, Mapping):
                copy(target.get_submodule(name), leaf, f"{path}{name}.")
                continue
            value = np.asarray(leaf)
            torch_name = {"kernel": "weight", "scale": "weight", "shift": "bias"}
            torch_name = torch_name.get(name, name)
            if name == "kernel" and isinstance(target, nn.ConvTranspose1d):
                value = value.transpose(1, 2, 0)
            elif name == "kernel":
                value = value.T
            own = missing.pop(path + torch_name)
            if value.ndim + 1 == own.ndim:  # a linear layer, here a 1x1 convolution
                value = value[..., None]
            if value.shape != own.shape:
                raise ValueError(f"{path}{name}: {value.shape} for {tuple(own.shape)}")
            own.data.copy_(torch.tensor(value))

    copy(module, params, "")
    if missing:
        raise ValueError(f"no value for {', '.join(sorted(missing))}")
