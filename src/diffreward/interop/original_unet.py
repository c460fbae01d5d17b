"""Names of the U-Net in the original code of latent diffusion, for those of diffusers.

There the blocks are one list of inputs and one of outputs; every level has the residual
blocks, each with its attention, and then what changes the resolution.
"""

import re
from collections.abc import Iterable

_RESIDUAL = {
    "norm1": "in_layers_0",
    "conv1": "in_layers_2",
    "time_emb_proj": "emb_layers_1",
    "norm2": "out_layers_0",
    "conv2": "out_layers_3",
    "conv_shortcut": "skip_connection",
}
_ENDS = {
    "conv_in": "input_blocks_0_0",
    "time_embedding.linear_1": "time_embed_0",
    "time_embedding.linear_2": "time_embed_2",
    "conv_norm_out": "out_0",
    "conv_out": "out_2",
    "mid_block.attentions.0": "middle_block_1",
    "mid_block.resnets.0": "middle_block_0",
    "mid_block.resnets.1": "middle_block_2",
}


def original_names(names: Iterable[str]) -> dict[str, str]:
    """Names of weights by those of their modules in the original code, dots underscored.

    Args:
        names: of a ``UNet2DConditionModel``'s tensors.
    """
    weights = {n.removesuffix(".weight"): n for n in names if n.endswith(".weight")}
    found = [re.match(r"down_blocks\.0\.resnets\.(\d{1,3})\.", n) for n in weights]
    levels = 1 + max((int(m[1]) for m in found if m), default=0)
    attended = {
        m[1] for n in weights if (m := re.match(r"up_blocks\.(\d+)\.attentions", n))
    }
    return {_original(n, levels + 1, attended): whole for n, whole in weights.items()}


def _original(name: str, each: int, attended: set[str]) -> str:
    """Of one module; ``each`` counts what a level has, resampling included."""
    place = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)(?:\.|$)", name)
    if place:
        side, block, kind, index = place[1], int(place[2]), place[3], int(place[4])
        rest = name[place.end() :]
        list_name = "input_blocks" if side == "down" else "output_blocks"
        start = block * each + (1 if side == "down" else 0)
        if kind == "downsamplers":
            return f"{list_name}_{start + each - 1}_0_op"
        if kind == "upsamplers":
            inner = 2 if place[2] in attended else 1
            return f"{list_name}_{start + each - 1}_{inner}_{rest}"
        inner = 1 if kind == "attentions" else 0
        return f"{list_name}_{start + index}_{inner}_{_inside(rest)}"
    for theirs, ours in _ENDS.items():
        if name == theirs or name.startswith(f"{theirs}."):
            rest = name[len(theirs) + 1 :]
            return f"{ours}_{_inside(rest)}" if rest else ours
    return name.replace(".", "_")


def _inside(rest: str) -> str:
    return _RESIDUAL.get(rest, rest.replace(".", "_"))
