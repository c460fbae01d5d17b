"""Foreign checkpoints in, safetensors out; PyTorch is never imported.

``load_model`` reads what it is given: a Diffuser state dict or a Hugging Face folder.
Files are data here: no code in a checkpoint is ever run.
"""

from diffreward.interop.diffuser import (
    Loaded,
    StateDict,
    load_single_step,
    load_unet,
    load_value,
    read_state_dict,
)
from diffreward.interop.huggingface import load_unet1d, save_unet1d
from diffreward.interop.lora import merge_lora, read_lora
from diffreward.interop.model import ForeignModel, load_model
from diffreward.interop.scheduler import load_scheduler, save_scheduler
from diffreward.interop.tensors import read_checkpoint, read_tensors
from diffreward.interop.torch_zip import read_torch

__all__ = [
    "ForeignModel",
    "Loaded",
    "StateDict",
    "load_model",
    "load_scheduler",
    "load_single_step",
    "load_unet",
    "load_unet1d",
    "load_value",
    "merge_lora",
    "read_checkpoint",
    "read_lora",
    "read_state_dict",
    "read_tensors",
    "read_torch",
    "save_scheduler",
    "save_unet1d",
]
