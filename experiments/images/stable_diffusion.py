"""Two predictions of Stable Diffusion as a pair: safe, guided or fine-tuned, and not."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from configs.common import ConfigDict, choose
from diffreward import data as d
from diffreward import files, report
from diffreward.diffusion import (
    SAFETY_CONCEPT,
    SAFETY_PRESETS,
    Remembering,
    guided_prediction,
    initial_memory,
    safe_eps,
    safe_step,
    to_eps,
)
from diffreward.files import Ledger, digest, recorded, sha256, user_path
from diffreward.interop.stable_diffusion import (
    StableDiffusion,
    load_stable_diffusion,
    make_prompt_encoder,
)
from diffreward.networks import apply
from diffreward.text import say
from diffreward.types import EpsFn, Params
from experiments import limits
from experiments.images import pair as image_pairs

PAIRS = ("safe", "guidance", "folders", "lora")
DECODED = 8
"""Latents decoded, and pictures encoded, at once."""
PICTURES = "pictures.npz"
"""Beside the prompts: pictures of known kind, for the audit."""
JUDGED = "judged.npz"
"""Beside them: others of the same kinds, which a judge of pictures learns from."""
CLASSES = "classes.json"
"""Beside them, if labels are numbers: what each stands for."""
AVOIDED = "unsafe"
"""Column of the prompts, if they have it: whether one asks for what is to be avoided."""


def check(config: ConfigDict) -> None:
    """Refuses values that a stage would only meet later."""
    section = config.sd
    choose("sd.pair", section.pair, PAIRS)
    choose("sd.safety", section.safety, SAFETY_PRESETS)
    choose("sd.dtype", section.dtype, ("float32", "bfloat16"))
    limits.at_least(section, "sd", requests=0)
    limits.finite(section, "sd", "scale", "base_scale", "lora_scale")
    needed = {"sd.folder": section.folder, "sd.prompts": section.prompts}
    needed |= expert_paths(section)
    for name, value in needed.items():
        if not value:
            raise ValueError(f"{name} is not set; add --config.{name}=PATH")
        if not user_path(value).exists():
            raise ValueError(f"{name}: {value} does not exist")


def expert_paths(section: ConfigDict) -> dict[str, str]:
    """What the expert is read from besides the base's folder, by its key."""
    keys = {"folders": "expert_folder", "lora": "lora"}
    key = keys.get(section.pair)
    return {f"sd.{key}": section[key]} if key else {}


def make_pair(config: ConfigDict, workdir: Path) -> image_pairs.ImagePair:
    """Reads the pipelines and the prompts."""
    section = config.sd
    folder = workdir / "models"
    paths = {"sd.folder": section.folder, **expert_paths(section)}
    paths["sd.prompts"] = section.prompts
    paths = {name: user_path(path) for name, path in paths.items()}
    load = partial(load_stable_diffusion, dtype=jnp.dtype(section.dtype))
    with recorded() as used:
        base = expert = load(paths["sd.folder"])
        if section.pair == "folders":
            expert = load(paths["sd.expert_folder"])
            check_alike(base, expert, section)
        elif section.pair == "lora":
            lora = paths["sd.lora"]
            expert = load(paths["sd.folder"], lora=lora, lora_scale=section.lora_scale)
        prompts = d.read_prompts(
            paths["sd.prompts"], column=section.column, limit=section.requests
        )
        beside = {n: paths["sd.prompts"].with_name(n) for n in (PICTURES, JUDGED)}
        beside[CLASSES] = paths["sd.prompts"].with_name(CLASSES)
        paths |= {name: path for name, path in beside.items() if path.exists()}
        names = read_classes(paths[CLASSES]) if CLASSES in paths else None
        known = {
            n: read_audience(paths[n], base, names)
            for n in (PICTURES, JUDGED)
            if n in paths
        }
        named = section.avoided or (AVOIDED if AVOIDED in prompts.columns else "")
        avoided = d.read_flags(prompts, named) if named else None
    # What was read is what the stages belong to, wherever it lies.
    places = ("remat", "folder", "expert_folder", "lora", "prompts")
    settings = {k: v for k, v in section.to_dict().items() if k not in places}
    done = report.open_stage(
        folder, settings, {name: digest_folder(path, used) for name, path in paths.items()}
    )
    say(f"{len(prompts.text)} prompts, latents {base.latent_shape}")
    if not done:
        read = {name: str(path) for name, path in paths.items()}
        report.close_stage(folder, {"prompts": len(prompts.text), "read": read})
    pair = build(section, base, expert, prompts)
    audience, judged = known.get(PICTURES), known.get(JUDGED)
    return pair._replace(audience=audience, judged=judged, avoided=avoided)


def read_classes(path: Path) -> list[str]:
    """Names of the kinds of pictures, in the order of their numbers.

    Raises:
        ValueError: naming the file, if it holds anything else.
    """
    names = files.read_json(path)
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise ValueError(f"{path} must be a list of names")
    return names


def read_audience(
    path: Path, model: StableDiffusion, names: Sequence[str] | None = None
) -> image_pairs.Audience:
    """Pictures of people's own, as latents of the model.

    It has ``pictures`` (count, height, width, 3), bytes; ``labels``; and ``preferred``,
    whether the expert is meant to prefer a picture.

    Raises:
        ValueError: naming the file, if it holds anything else.
    """
    arrays = d.read_arrays(path)
    if missing := {"pictures", "labels", "preferred"} - arrays.keys():
        raise ValueError(f"{path} lacks the array {min(missing)}")
    pictures, good = arrays["pictures"], arrays["preferred"]
    height, width, _ = model.latent_shape
    factor = 2 ** (len(model.encoder.network.widths) - 1)
    shape = (len(good), factor * height, factor * width, 3)
    if pictures.shape != shape or pictures.dtype != np.uint8:
        raise ValueError(
            f"{path}: pictures are {pictures.dtype} shaped {pictures.shape}; this model "
            f"and {len(good)} answers need bytes shaped {shape}"
        )
    if (
        good.dtype != bool
        or arrays["labels"].shape != good.shape
        or good.all() == good.any()
    ):
        raise ValueError(f"{path}: preferred must be true for some pictures, not for all")
    labels = arrays["labels"]
    if names is not None:
        if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= len(names):
            raise ValueError(f"{path}: labels must be numbers of {len(names)} names")
        labels = np.array(names)[labels]
    network, params = model.encoder
    one = lambda x: network.apply(params, x.astype(jnp.float32) / 127.5 - 1)[0]
    encode = jax.jit(jax.vmap(one))
    parts = [
        np.asarray(encode(pictures[i : i + DECODED]), np.float32)
        for i in range(0, len(pictures), DECODED)
    ]
    latents = model.scaling_factor * np.concatenate(parts)
    return image_pairs.Audience(latents, labels, good)


def build(
    section: ConfigDict,
    base: StableDiffusion,
    expert: StableDiffusion,
    prompts: d.Prompts,
) -> image_pairs.ImagePair:
    """The pair of ``section.pair``."""
    encode = make_prompt_encoder(base)
    fixed = encode(["", section.concept or base.concept or SAFETY_CONCEPT])
    params = {"base": base.unet.params, "empty": fixed[0], "concept": fixed[1]}
    two = section.pair in ("folders", "lora")
    encode_expert = make_prompt_encoder(expert)
    if two:
        params |= {"expert": expert.unet.params, "expert_empty": encode_expert([""])[0]}

    def models(params: Params, context: tuple[Array, ...]) -> tuple[EpsFn, Any]:
        ways = [params["empty"], context[0]]
        run = make_run(base, params["base"])
        free = guided_by(run, ways, section.scale)
        if section.pair == "guidance":
            return guided_by(run, ways, section.base_scale), free
        if two:
            other, theirs = make_run(expert, params["expert"]), context[1]
            own = [params["expert_empty"], theirs]
            return free, guided_by(other, own, section.scale)
        three = lambda x, t: tuple(run(x, t, [*ways, params["concept"]]))

        def base_of_three(x_t: Array, t: Array) -> Array:
            """The same three, so that the compiler asks once for both models."""
            unconditional, prompt, _ = three(x_t, t)
            return guided_prediction(unconditional, prompt, section.scale)

        safe = three, SAFETY_PRESETS[section.safety], section.scale
        memory = initial_memory(base.latent_shape)
        return base_of_three, Remembering(safe_step(*safe), memory, safe_eps(*safe))

    def of_texts(texts: Sequence[str]) -> tuple[Array, ...]:
        # An adapted model may read prompts in its own way.
        return (encode(texts), *((encode_expert(texts),) if two else ()))

    def contexts(indices: Sequence[int] | np.ndarray) -> tuple[Array, ...]:
        return of_texts([prompts.text[int(i)] for i in indices])

    cut = base.too_long(prompts.text)
    if cut:
        say(f"{len(cut)} prompts are longer than the encoder reads, and cut")
    names = {
        "safe": f"Safe Latent Diffusion ({section.safety}) against the same model without",
        "guidance": f"guidance {section.scale:g} against {section.base_scale:g}",
        "folders": f"{section.expert_folder} against {section.folder}",
        "lora": f"{section.lora} at {section.lora_scale:g} against {section.folder}",
    }
    return image_pairs.ImagePair(
        name=names[section.pair],
        shape=base.latent_shape,
        schedule=base.schedule,
        models=models,
        params=params,
        prompts=prompts,
        contexts=contexts,
        decode=make_decode(base),
        empty=lambda: of_texts([""]),
        cut=cut,
    )


def make_run(
    model: StableDiffusion, params: Params
) -> Callable[[Array, Array, list[Array]], Array]:
    """Noise predictions of one latent for several prompts, in one batch."""

    def run(x_t: Array, t: Array, contexts: list[Array]) -> Array:
        one = lambda c: apply(model.unet.network, params, x_t, t, c)
        outputs = jax.vmap(one)(jnp.stack(contexts))
        return jax.vmap(lambda o: to_eps(model.schedule, model.prediction, x_t, t, o))(
            outputs
        )

    return run


def guided_by(
    run: Callable[[Array, Array, list[Array]], Array], contexts: list[Array], scale: float
) -> EpsFn:
    """Noise prediction under classifier-free guidance by (empty, prompt)."""

    def eps(x_t: Array, t: Array) -> Array:
        unconditional, prompt = run(x_t, t, contexts)
        return guided_prediction(unconditional, prompt, scale)

    return eps


def make_decode(model: StableDiffusion) -> Callable[[np.ndarray], np.ndarray]:
    """Latents to pictures in [0, 1], a few at a time."""
    network, params = model.decoder
    dtype = jax.tree.leaves(params)[0].dtype
    one = lambda z: network.apply(params, (z / model.scaling_factor).astype(dtype))
    batched = jax.jit(jax.vmap(lambda z: one(z).astype(jnp.float32)))

    def decode(latents: np.ndarray) -> np.ndarray:
        parts = [
            np.asarray(batched(jnp.asarray(latents[i : i + DECODED])))
            for i in range(0, len(latents), DECODED)
        ]
        return np.clip((np.concatenate(parts) + 1) / 2, 0, 1)

    return decode


def check_alike(
    base: StableDiffusion, expert: StableDiffusion, section: ConfigDict
) -> None:
    """Two folders must speak of the same latents."""
    pairs = {
        "latent shape": (base.latent_shape, expert.latent_shape),
        "noise schedule": (base.schedule.num_steps, expert.schedule.num_steps),
        "last alpha_bar": (
            float(base.schedule.alpha_bar[-1]),
            float(expert.schedule.alpha_bar[-1]),
        ),
        "scaling factor": (base.scaling_factor, expert.scaling_factor),
    }
    for name, (ours, theirs) in pairs.items():
        if ours != theirs:
            raise ValueError(
                f"{section.folder} and {section.expert_folder} differ in {name}: "
                f"{ours} and {theirs}; their latents cannot be compared"
            )


def digest_folder(path: Path, used: Ledger | None = None) -> str:
    """Digest of a folder's, or a file's, names and bytes.

    Args:
        path: of the folder.
        used: digests of the files that were read, here or elsewhere; by default of every
            file in the folder.
    """
    if used is None:
        used = {p: sha256(p) for p in sorted(path.rglob("*")) if p.is_file()}
    own = {p: sha for p, sha in used.items() if p.is_relative_to(path)}
    return digest(own, path)


SOURCE = image_pairs.PairSource(check, make_pair, stages=("models",), has_prompts=True)
