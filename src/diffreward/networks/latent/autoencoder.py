"""The image autoencoder of latent diffusion (Rombach et al., 2022): pictures to latents."""

import flax.linen as nn
import jax.numpy as jnp

from diffreward.networks.latent.blocks import (
    Downsample2D,
    Image,
    PixelAttention,
    ResidualBlock2D,
    Upsample2D,
    conv3,
    group_norm,
)

EPS = 1e-6


class Stage(nn.Module):
    """Residual blocks, then resampling."""

    channels: int
    blocks: int
    groups: int
    resample: str = ""

    @nn.compact
    def __call__(self, x: Image) -> Image:
        """Maps an image to one of ``channels`` channels."""
        for i in range(self.blocks):
            x = ResidualBlock2D(self.channels, self.groups, EPS, name=f"resnets_{i}")(x)
        if self.resample == "down":
            return Downsample2D(pad_after=True, name="downsamplers_0")(x)
        return Upsample2D(name="upsamplers_0")(x) if self.resample == "up" else x


class Middle(nn.Module):
    """Residual block, attention over pixels, residual block."""

    groups: int

    @nn.compact
    def __call__(self, x: Image) -> Image:
        """Maps an image to one of the same shape."""
        c = x.shape[-1]
        x = ResidualBlock2D(c, self.groups, EPS, name="resnets_0")(x)
        x = PixelAttention(self.groups, EPS, name="attentions_0")(x)
        return ResidualBlock2D(c, self.groups, EPS, name="resnets_1")(x)


class Encoder(nn.Module):
    """Picture in [-1, 1] to mean and log-variance of its latent, before scaling."""

    widths: tuple[int, ...] = (128, 256, 512, 512)
    blocks: int = 2
    latent_channels: int = 4
    groups: int = 32

    @nn.compact
    def __call__(self, picture: Image) -> tuple[Image, Image]:
        """Mean and log-variance, clipped to [-30, 20]."""
        x = conv3(self.widths[0], "conv_in")(picture)
        last = len(self.widths) - 1
        for i, width in enumerate(self.widths):
            resample = "down" if i < last else ""
            name = f"down_blocks_{i}"
            x = Stage(width, self.blocks, self.groups, resample, name=name)(x)
        x = Middle(self.groups, name="mid_block")(x)
        x = nn.silu(group_norm(self.groups, EPS, "conv_norm_out")(x))
        x = conv3(2 * self.latent_channels, "conv_out")(x)
        x = nn.Dense(2 * self.latent_channels, name="quant_conv")(x)
        mean, log_variance = jnp.split(x, 2, axis=-1)
        return mean, jnp.clip(log_variance, -30.0, 20.0)


class Decoder(nn.Module):
    """Latent (already divided by the scaling factor) to a picture in about [-1, 1]."""

    widths: tuple[int, ...] = (128, 256, 512, 512)
    blocks: int = 2
    out_channels: int = 3
    groups: int = 32

    @nn.compact
    def __call__(self, latent: Image) -> Image:
        """The picture."""
        x = nn.Dense(latent.shape[-1], name="post_quant_conv")(latent)
        x = conv3(self.widths[-1], "conv_in")(x)
        x = Middle(self.groups, name="mid_block")(x)
        last = len(self.widths) - 1
        for i, width in enumerate(self.widths[::-1]):
            resample = "up" if i < last else ""
            name = f"up_blocks_{i}"
            x = Stage(width, self.blocks + 1, self.groups, resample, name=name)(x)
        x = nn.silu(group_norm(self.groups, EPS, "conv_norm_out")(x))
        return conv3(self.out_channels, "conv_out")(x)
