"""Pipelines of the Stable Diffusion v1 family from a Hugging Face folder, without PyTorch.

A folder holds ``text_encoder/``, ``tokenizer/``, ``unet/``, ``vae/`` and ``scheduler/``;
safety checkers and feature extractors are not read.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffreward import files
from diffreward.diffusion import Prediction, Schedule
from diffreward.interop.latent import (
    Adapt,
    Part,
    load_autoencoder,
    load_text_encoder,
    load_unet,
)
from diffreward.interop.lora import merge_lora, read_lora
from diffreward.interop.options import check_class, read_object, shown
from diffreward.interop.save_pipeline import CONCEPT
from diffreward.interop.scheduler import load_scheduler
from diffreward.interop.tokenizer import load_tokenizer

PIPELINES = ("StableDiffusionPipeline", "StableDiffusionPipelineSafe")
COMPONENTS = {
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "scheduler": (),
}
"""Parts that are read, and the classes they may have; the scheduler's own file names it."""


class StableDiffusion(NamedTuple):
    """Everything between a prompt and a picture."""

    text_encoder: Part
    unet: Part
    encoder: Part
    decoder: Part
    scaling_factor: float
    """Latents of the U-Net are the autoencoder's times this."""
    schedule: Schedule
    prediction: Prediction
    tokenise: Callable[[Sequence[str]], np.ndarray]
    """Maps prompts to identifiers (count, tokens)."""
    too_long: Callable[[Sequence[str]], list[int]]
    """Indices of prompts that have more tokens than the text encoder takes."""
    latent_shape: tuple[int, int, int]
    """Height, width, channels the model was made for."""
    concept: str = ""
    """What its safety guidance is to keep away from, if it says so."""


@files.contained
def load_stable_diffusion(
    folder: str | Path,
    *,
    dtype: Any = jnp.float32,
    remat: bool = False,
    lora: str | Path | None = None,
    lora_scale: float = 1.0,
) -> StableDiffusion:
    """Reads a pipeline.

    Args:
        folder: of the pipeline.
        dtype: of the parameters, and so of the computation.
        remat: recompute the U-Net's activations for gradients.
        lora: file of an adaptation to merge (see :func:`read_lora`).
        lora_scale: its strength.

    Raises:
        ValueError: naming the file or folder, for anything missing, damaged or of another
            family.
    """
    folder = Path(folder)
    index = read_object(folder / "model_index.json")
    check_class(index, folder / "model_index.json", *PIPELINES)
    for name, classes in COMPONENTS.items():
        if not (folder / name).is_dir():
            raise ValueError(f"{folder} lacks the folder {name}")
        kind = index.get(name)
        kind = kind[-1] if isinstance(kind, list) and kind else kind
        if not isinstance(kind, str) or (classes and kind not in classes):
            raise ValueError(
                f"{folder / 'model_index.json'}: {name} = {shown(index.get(name))} is not "
                f"supported{'; ' + ' or '.join(classes) if classes else ''}"
            )
    concept = index.get(CONCEPT, "")
    if not isinstance(concept, str):
        raise ValueError(f"{folder / 'model_index.json'}: {CONCEPT} is no text")
    added = read_lora(lora) if lora else {}

    def adapt(part: str) -> Adapt:
        changes = added.get(part, {})
        return lambda tensors: merge_lora(tensors, changes, lora_scale, lora or "")

    unet, size = load_unet(folder / "unet", dtype=dtype, remat=remat, adapt=adapt("unet"))
    encoder, decoder, scaling = load_autoencoder(folder / "vae", dtype=dtype)
    text = load_text_encoder(
        folder / "text_encoder", dtype=dtype, adapt=adapt("text_encoder")
    )
    schedule, prediction = load_scheduler(folder / "scheduler")
    tokeniser = load_tokenizer(
        folder / "tokenizer", text.network.positions, text.network.vocabulary
    )
    channels = decoder.params["params"]["post_quant_conv"]["bias"].shape[0]
    return StableDiffusion(
        text_encoder=text,
        unet=unet,
        encoder=encoder,
        decoder=decoder,
        scaling_factor=scaling,
        schedule=schedule,
        prediction=prediction,
        tokenise=tokeniser,
        too_long=tokeniser.too_long,
        latent_shape=(*size, channels),
        concept=concept,
    )


def make_prompt_encoder(
    pipeline: StableDiffusion,
) -> Callable[[Sequence[str]], Float[Array, "prompts tokens width"]]:
    """Maps prompts to what the U-Net reads of each; compiled once per number of them."""
    text = pipeline.text_encoder
    encode = jax.jit(jax.vmap(lambda row: text.network.apply(text.params, row)))
    return lambda prompts: encode(jnp.asarray(pipeline.tokenise(prompts), jnp.int32))
