"""What an audit of Stable Diffusion will need, told before anything runs."""

import os
from pathlib import Path

from configs.common import ConfigDict
from diffreward import data as d
from diffreward import files
from diffreward.files import user_path
from diffreward.interop.options import read_object, whole
from diffreward.interop.tensors import choose, count_numbers
from diffreward.text import say
from experiments.images import miniature
from experiments.images import records as image_records
from experiments.images.build import check, with_steps
from experiments.images.stable_diffusion import expert_paths

GIB = 2**30
PARTS = ("unet", "vae", "text_encoder")
PASSES = {"safe": 3, "guidance": 2, "folders": 4, "lora": 4}
"""Passes of a U-Net per recorded state, both models together; what both ask of one U-Net
is asked once (a test)."""
LOADING = 1.3
"""Of the bytes of the parameters, at most, what loading them needs (a test)."""
ITEM = {"float16": 2, "float32": 4}


def plan(config: ConfigDict, workdir: Path) -> None:
    """Checks a config, and for ``sd`` its folder and prompts; writes nothing.

    Raises:
        ValueError: for what the run itself would refuse, as far as it can be seen without
            reading weights, or if its records do not fit on the disk.
    """
    if config.task == "miniature":
        miniature.check(config)
        say("the config is sound; four models are trained, on pictures of a package")
        return
    check(config)
    if config.task != "sd":
        say(f"the config is sound; {config.task} reads nothing from elsewhere")
        return
    section = config.sd
    folder = user_path(section.folder)
    prompts = d.read_prompts(
        user_path(section.prompts), column=section.column, limit=section.requests
    )
    requests = len(prompts.text)
    folders = [folder, *(user_path(p) for p in expert_paths(section).values())]
    places = [f / part for f in folders if f.is_dir() for part in PARTS]
    weights = sum(map(weights_bytes, places))
    counts = [count_numbers(place) for place in places]
    item = 2 if section.dtype == "bfloat16" else 4
    # What PyTorch's files hold only reading them tells; most have single precision.
    memory = sum(
        n * item if n is not None else weights_bytes(place) * item // 4
        for n, place in zip(counts, places, strict=True)
    )
    needed, there = round(memory * LOADING), memory_bytes()
    path = folder / "unet" / "config.json"
    unet = read_object(path)
    side, channels = (whole(unet, n, path) for n in ("sample_size", "in_channels"))
    states = 2 * requests * config.records.levels
    latent = side * side * channels
    kept = len(image_records.ROWS) * ITEM[config.records.dtype]
    disk = states * latent * kept + 2 * requests * latent * ITEM["float32"]
    passes = states * PASSES[section.pair]
    free = free_bytes(workdir)
    trained = image_records.FRACTIONS[0] * states
    rewards = with_steps(config, requests).rewards
    epochs = rewards.steps * rewards.batch_size / trained
    say(
        f"{requests:,} prompts, latents {side} x {side} x {channels}\n"
        f"weights: {weights / GIB:.2f} GiB on disk, {memory / GIB:.2f} in memory as "
        f"{section.dtype} ({there / GIB:.1f} there)\n"
        f"records: {passes:,} passes of a U-Net, {disk / GIB:.2f} GiB on disk "
        f"({free / GIB:.1f} free)\n"
        f"reward: {rewards.steps:,} steps of {rewards.batch_size}, "
        f"{epochs:.1f} times through the recorded states of training"
    )
    if needed > there:
        raise ValueError(
            f"loading needs {needed / GIB:.1f} GiB of memory, and there are "
            f"{there / GIB:.1f}; use sd.dtype=bfloat16, or another machine"
        )
    if disk > free:
        raise ValueError(
            f"the records need {disk / GIB:.1f} GiB, and {free / GIB:.1f} are free at "
            f"{workdir}; choose another --workdir, fewer sd.requests or records.levels, or "
            "records.dtype=float16"
        )


def weights_bytes(folder: Path) -> int:
    """Of the weights of a part that would be read, on the disk.

    Raises:
        ValueError: if there are none.
    """
    chosen = choose(folder).path
    if chosen.suffix != ".json":
        return chosen.stat().st_size
    index = files.read_json(chosen)
    named = index.get("weight_map", {}) if isinstance(index, dict) else {}
    return sum((folder / str(name)).stat().st_size for name in set(named.values()))


def free_bytes(workdir: Path) -> int:
    """Of the disk that a folder is or will be on."""
    place = workdir.absolute()
    while not place.exists():
        place = place.parent
    about = os.statvfs(place)
    return about.f_bavail * about.f_frsize


def memory_bytes() -> int:
    """Memory of this machine, used or not."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
