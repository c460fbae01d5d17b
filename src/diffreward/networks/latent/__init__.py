"""The Stable Diffusion v1 family: text encoder, U-Net and autoencoder, channels last.

Submodules carry the names of the published checkpoints (``down_blocks_0/resnets_1``), so
reading one is a renaming.
"""

from diffreward.networks.latent.autoencoder import Decoder, Encoder
from diffreward.networks.latent.text_encoder import TextEncoder
from diffreward.networks.latent.unet2d import Unet2D

__all__ = ["Unet2D", "Decoder", "Encoder", "TextEncoder"]
