"""PyTorch modules with the tensor names of the published Diffuser checkpoints."""

import math

import torch
from torch import nn


class Sinusoid(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, t):
        half = self.dim // 2
        rates = torch.exp(-math.log(10000) / (half - 1) * torch.arange(half))
        angles = t[:, None] * rates[None]
        return torch.cat([angles.sin(), angles.cos()], -1)


class Lift(nn.Module):
    """Adds or drops a last axis; holds a place in a list of layers."""

    def forward(self, x):
        return x


def time_mlp(dim, act):
    return nn.Sequential(
        Sinusoid(dim), nn.Linear(dim, 4 * dim), act, nn.Linear(4 * dim, dim)
    )


class ConvBlock(nn.Module):
    def __init__(self, c_in, c_out, act):
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv1d(c_in, c_out, 5, padding=2),
            Lift(),
            nn.GroupNorm(8, c_out),
            Lift(),
            act,
        )

    def forward(self, x):
        return self.block(x)


class Residual(nn.Module):
    def __init__(self, c_in, c_out, dim, act):
        super().__init__()
        self.blocks = nn.ModuleList(
            [ConvBlock(c_in, c_out, act), ConvBlock(c_out, c_out, act)]
        )
        self.time_mlp = nn.Sequential(act, nn.Linear(dim, c_out), Lift())
        self.residual_conv = nn.Conv1d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x, t):
        h = self.blocks[0](x) + self.time_mlp(t)[:, :, None]
        return self.blocks[1](h) + self.residual_conv(x)


class Norm(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, channels, 1))
        self.b = nn.Parameter(torch.zeros(1, channels, 1))

    def forward(self, x):
        variance = x.var(1, unbiased=False, keepdim=True)
        return (x - x.mean(1, keepdim=True)) / (variance + 1e-5).sqrt() * self.g + self.b


class Attention(nn.Module):
    def __init__(self, channels, heads=4, size=32):
        super().__init__()
        self.heads, self.size = heads, size
        self.to_qkv = nn.Conv1d(channels, 3 * heads * size, 1, bias=False)
        self.to_out = nn.Conv1d(heads * size, channels, 1)

    def forward(self, x):
        parts = self.to_qkv(x).chunk(3, 1)
        q, k, v = (p.reshape(len(x), self.heads, self.size, -1) for p in parts)
        context = torch.einsum("bhdn,bhen->bhde", k.softmax(-1), v)
        out = torch.einsum("bhde,bhdn->bhen", context, q * self.size**-0.5)
        return self.to_out(out.reshape(len(x), self.heads * self.size, -1))


class Wrap(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.fn = fn


class PreNorm(Wrap):
    def __init__(self, channels, fn):
        super().__init__(fn)
        self.norm = Norm(channels)

    def forward(self, x):
        return self.fn(self.norm(x))


class Shortcut(Wrap):
    def forward(self, x):
        return x + self.fn(x)


class Resample(nn.Module):
    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, x):
        return self.conv(x)


def down(c):
    return Resample(nn.Conv1d(c, c, 3, 2, 1))


def attend(c, used):
    return Shortcut(PreNorm(c, Attention(c))) if used else nn.Identity()


class TemporalUnet(nn.Module):
    def __init__(self, dim_in, dim, mults, attention):
        super().__init__()
        act = nn.Mish()
        widths = [dim * m for m in mults]
        self.time_mlp = time_mlp(dim, act)
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        sizes = list(zip([dim_in, *widths[:-1]], widths, strict=True))
        for i, (a, b) in enumerate(sizes):
            last = i == len(sizes) - 1
            parts = [
                Residual(a, b, dim, act),
                Residual(b, b, dim, act),
                attend(b, attention),
            ]
            self.downs.append(nn.ModuleList([*parts, nn.Identity() if last else down(b)]))
        top = widths[-1]
        self.mid_block1 = Residual(top, top, dim, act)
        self.mid_attn = attend(top, attention)
        self.mid_block2 = Residual(top, top, dim, act)
        for a, b in reversed(sizes[1:]):
            up = Resample(nn.ConvTranspose1d(a, a, 4, 2, 1))
            parts = [Residual(2 * b, a, dim, act), Residual(a, a, dim, act)]
            self.ups.append(nn.ModuleList([*parts, attend(a, attention), up]))
        self.final_conv = nn.Sequential(
            ConvBlock(dim, dim, act), nn.Conv1d(widths[0], dim_in, 1)
        )

    def forward(self, x, t):
        h, t, kept = x.mT, self.time_mlp(t), []
        for one, two, attention, resample in self.downs:
            h = attention(two(one(h, t), t))
            kept.append(h)
            h = resample(h)
        h = self.mid_block2(self.mid_attn(self.mid_block1(h, t)), t)
        for one, two, attention, resample in self.ups:
            h = resample(attention(two(one(torch.cat([h, kept.pop()], 1), t), t)))
        return self.final_conv(h).mT


class ValueFunction(nn.Module):
    def __init__(self, dim_in, horizon, dim, mults, act):
        super().__init__()
        self.time_mlp = time_mlp(dim, act)
        self.blocks, channels = nn.ModuleList(), dim_in
        for width in [dim * m for m in mults]:
            parts = [Residual(channels, width, dim, act), Residual(width, width, dim, act)]
            self.blocks.append(nn.ModuleList([*parts, down(width)]))
            channels, horizon = width, (horizon + 1) // 2
        half, quarter = channels // 2, channels // 4
        self.mid_block1 = Residual(channels, half, dim, act)
        self.mid_down1 = down(half)
        self.mid_block2 = Residual(half, quarter, dim, act)
        self.mid_down2 = down(quarter)
        flat = quarter * (((horizon + 1) // 2 + 1) // 2)
        self.final_block = nn.Sequential(
            nn.Linear(flat + dim, flat // 2), act, nn.Linear(flat // 2, 1)
        )

    def forward(self, x, t):
        h, t = x.mT, self.time_mlp(t)
        for one, two, resample in self.blocks:
            h = resample(two(one(h, t), t))
        h = self.mid_down1(self.mid_block1(h, t))
        h = self.mid_down2(self.mid_block2(h, t))
        return self.final_block(torch.cat([h.flatten(1), t], -1))[:, 0]


class SingleStep(nn.Module):
    """Body of linear layers, the activation after every one but the last."""

    def __init__(self, window, dim_in, widths, act):
        super().__init__()
        self.time_mlp = time_mlp(32, act)
        sizes = [window * dim_in + 32, *widths, 1]
        layers = []
        for a, b in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Linear(a, b), act]
        self.net = nn.Sequential(*layers, nn.Linear(1, 1))

    def forward(self, x, t):
        return self.net(torch.cat([x.flatten(1), self.time_mlp(t)], -1))[:, 0]


class FilmConv(nn.Module):
    """Convolution, normalisation, Mish."""

    def __init__(self, c_in, c_out, taps, groups):
        super().__init__()
        conv = nn.Conv1d(c_in, c_out, taps, padding=taps // 2)
        self.block = nn.Sequential(conv, nn.GroupNorm(groups, c_out), nn.Mish())

    def forward(self, x):
        return self.block(x)


class FilmBlock(nn.Module):
    """Residual block of a diffusion policy."""

    def __init__(self, c_in, c_out, told, taps, groups, scale):
        super().__init__()
        self.conv1 = FilmConv(c_in, c_out, taps, groups)
        self.conv2 = FilmConv(c_out, c_out, taps, groups)
        film = nn.Linear(told, c_out * (2 if scale else 1))
        self.cond_encoder = nn.Sequential(nn.Mish(), film)
        same = c_in == c_out
        self.residual_conv = nn.Identity() if same else nn.Conv1d(c_in, c_out, 1)
        self.scale = scale

    def forward(self, x, told):
        film = self.cond_encoder(told)[:, :, None]
        h = self.conv1(x)
        if self.scale:
            factor, shift = film.chunk(2, dim=1)
            h = factor * h + shift
        else:
            h = h + film
        return self.conv2(h) + self.residual_conv(x)


class FilmUnet(nn.Module):
    """U-Net of a diffusion policy, under the names of LeRobot."""

    def __init__(self, dim, told, widths, time_dim, taps, groups, scale):
        super().__init__()
        self.diffusion_step_encoder = time_mlp(time_dim, nn.Mish())
        size = time_dim + told
        block = lambda a, b: FilmBlock(a, b, size, taps, groups, scale)
        downs, ups = [], []
        for i, (a, b) in enumerate(zip([dim, *widths], widths, strict=False)):
            last = i == len(widths) - 1
            down = nn.Identity() if last else nn.Conv1d(b, b, 3, 2, 1)
            downs.append(nn.ModuleList([block(a, b), block(b, b), down]))
        for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True):
            up = nn.ConvTranspose1d(b, b, 4, 2, 1)
            ups.append(nn.ModuleList([block(2 * a, b), block(b, b), up]))
        self.down_modules, self.up_modules = nn.ModuleList(downs), nn.ModuleList(ups)
        last = widths[-1]
        self.mid_modules = nn.ModuleList([block(last, last), block(last, last)])
        first = widths[0]
        head = nn.Conv1d(first, dim, 1)
        self.final_conv = nn.Sequential(FilmConv(first, first, taps, 8), head)

    def forward(self, x, t, told):
        told = torch.cat([self.diffusion_step_encoder(t), told], dim=-1)
        h, skips = x.transpose(1, 2), []
        for first, second, down in self.down_modules:
            h = second(first(h, told), told)
            skips.append(h)
            h = down(h)
        for block in self.mid_modules:
            h = block(h, told)
        for first, second, up in self.up_modules:
            h = torch.cat([h, skips.pop()], dim=1)
            h = up(second(first(h, told), told))
        return self.final_conv(h).transpose(1, 2)
