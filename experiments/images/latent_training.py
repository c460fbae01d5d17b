"""Training of a latent text-to-image model: autoencoder, then text encoder and U-Net."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from configs.common import ConfigDict
from diffreward import report, train
from diffreward.diffusion import (
    Schedule,
    draw_levels,
    guided_prediction,
    q_sample,
    sample,
)
from diffreward.interop.tokenizer import Tokeniser
from diffreward.learn import init_low_rank, with_low_rank
from diffreward.report import figures
from diffreward.types import Params
from experiments import stages
from experiments.images.scenes import SIDE, Scenes

CHUNK = 256
"""Pictures encoded at once."""
SHOWN = 16
"""Pictures in a grid."""
EVALUATIONS, GUIDANCE = 20, 4.0
"""Of the network per picture of a grid, and the scale of its guidance."""


class Models(NamedTuple):
    """The networks of a config, without parameters."""

    # Of the classes of networks.latent; what their apply returns is not told.
    encoder: Any
    decoder: Any
    text: Any
    unet: Any
    schedule: Schedule
    side: int
    """Of a latent."""

    @property
    def latent(self) -> tuple[int, int, int]:
        """Shape of a latent."""
        return (self.side, self.side, self.unet.out_channels)


def unit(pictures: Any) -> Any:
    """Bytes to [-1, 1]."""
    return pictures.astype(jnp.float32) / 127.5 - 1


def train_vae(
    config: ConfigDict, workdir: Path, models: Models, scenes: dict[str, Scenes]
) -> Params:
    """The autoencoder: squared error, and a little of the KL to N(0, I)."""
    m = config.miniature
    parts = {"encoder": models.encoder, "decoder": models.decoder}
    examples = {
        "encoder": jnp.zeros((SIDE, SIDE, 3)),
        "decoder": jnp.zeros(models.latent),
    }

    def first(key: Array) -> Params:
        keys = jax.random.split(key, len(parts))
        named = zip(parts.items(), keys, strict=True)
        return {n: part.init(k, examples[n]) for (n, part), k in named}

    def one(params: Params, key: Array, picture: Array) -> tuple[Array, Array]:
        x = unit(picture)
        mean, log_variance = models.encoder.apply(params["encoder"], x)
        noise = jax.random.normal(key, mean.shape)
        z = mean + jnp.exp(log_variance / 2) * noise
        error = jnp.mean(jnp.square(models.decoder.apply(params["decoder"], z) - x))
        variance = jnp.exp(log_variance)
        kl = jnp.mean(jnp.square(mean) + variance - 1 - log_variance) / 2
        return error, kl

    def loss(params: Params, frozen: Any, key: Array, batch: Array) -> tuple:
        del frozen
        keys = jax.random.split(key, len(batch))
        error, kl = jax.vmap(partial(one, params))(keys, batch)
        return error.mean() + m.kl * kl.mean(), {"error": error.mean(), "kl": kl.mean()}

    val = jnp.asarray(scenes["val"].pictures[:CHUNK])
    measure = jax.jit(lambda p: loss(p, None, jax.random.key(1), val))

    def evaluate(state: train.TrainState) -> dict[str, Any]:
        params = jax.device_get(state.ema_params)
        value, others = measure(params)
        shown = scenes["val"].pictures[:SHOWN]
        mean, _ = encode(models.encoder, params["encoder"], shown)
        again = decode(models.decoder, params["decoder"], mean)
        pairs = {"scene": shown / 255, "decoded": again}
        draw_grid(workdir / "figures" / "autoencoder.png", pairs)
        return {"loss": value, **others}

    return stages.train_stage(
        workdir / "vae",
        train.Task(init=first, loss=loss, draw=drawer(m.vae.batch_size)),
        m.vae,
        settings={"widths": list(m.vae_widths), "kl": m.kl},
        inputs={"scenes": report.stage_digest(workdir / "scenes")},
        data=jnp.asarray(scenes["train"].pictures),
        seed=config.seed,
        evaluate=evaluate,
    )


def encode(
    encoder: Any, params: Params, pictures: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Means and deviations of the latents of pictures."""

    @jax.jit
    def some(pictures: Array) -> tuple[Array, Array]:
        mean, log_variance = jax.vmap(lambda x: encoder.apply(params, unit(x)))(pictures)
        return mean, jnp.exp(log_variance / 2)

    parts = [some(pictures[n : n + CHUNK]) for n in range(0, len(pictures), CHUNK)]
    mean, deviation = (np.concatenate([np.asarray(p[i]) for p in parts]) for i in (0, 1))
    return mean, deviation


def decode(decoder: Any, params: Params, latents: np.ndarray) -> np.ndarray:
    """Pictures in [0, 1] of latents that are not scaled."""
    found = jax.jit(jax.vmap(lambda z: decoder.apply(params, z)))(jnp.asarray(latents))
    return np.clip((np.asarray(found) + 1) / 2, 0, 1)


Rows = dict[str, np.ndarray]
"""``mean`` and ``deviation`` of scaled latents, and ``ids`` of their captions."""


def latent_rows(
    found: tuple[np.ndarray, np.ndarray], scaling: float, ids: np.ndarray
) -> Rows:
    """What the U-Net is trained on."""
    mean, deviation = (scaling * x for x in found)
    return {"mean": mean, "deviation": deviation, "ids": ids}


def drawer(size: int) -> Callable[[Any, Array], Any]:
    """Draws rows with replacement, the same of every array."""

    def draw(data: Any, key: Array) -> Any:
        count = jax.tree.leaves(data)[0].shape[0]
        picks = jax.random.randint(key, (size,), 0, count)
        return jax.tree.map(lambda x: x[picks], data)

    return draw


def make_loss(
    config: ConfigDict, models: Models, empty: Array
) -> Callable[[Params, Params, Array, Any], Array]:
    """Error of the noise, of (text encoder, U-Net, key, rows); captions are left out."""
    dropout, schedule = config.miniature.dropout, models.schedule

    def loss(text: Params, unet: Params, key: Array, batch: dict[str, Array]) -> Array:
        drop_key, level_key, latent_key, noise_key = jax.random.split(key, 4)
        count = len(batch["ids"])
        without = jax.random.uniform(drop_key, (count, 1)) < dropout
        ids = jnp.where(without, empty[None], batch["ids"])
        shape = batch["mean"].shape
        x_0 = batch["mean"] + batch["deviation"] * jax.random.normal(latent_key, shape)
        t = draw_levels(level_key, count, schedule.num_steps)
        eps = jax.random.normal(noise_key, shape)

        def one(ids: Array, x_0: Array, t: Array, eps: Array) -> Array:
            x_t = q_sample(schedule, x_0, t, eps)
            found = models.unet.apply(unet, x_t, t, models.text.apply(text, ids))
            return jnp.mean(jnp.square(found - eps))

        return jax.vmap(one)(ids, x_0, t, eps).mean()

    return loss


def train_denoiser(
    config: ConfigDict,
    workdir: Path,
    models: Models,
    scenes: dict[str, Scenes],
    sets: dict[str, Rows],
    scaling: float,
    tokeniser: Tokeniser,
    decoder: Params,
) -> Params:
    """Text encoder and U-Net together; some captions are left out, for guidance."""
    m = config.miniature

    empty = jnp.asarray(tokeniser([""])[0])

    def first(key: Array) -> Params:
        text_key, unet_key = jax.random.split(key)
        x, t = jnp.zeros(models.latent), jnp.int32(0)
        words = jnp.zeros((m.tokens, m.text_width))
        return {
            "text": models.text.init(text_key, empty),
            "unet": models.unet.init(unet_key, x, t, words),
        }

    denoise = make_loss(config, models, empty)

    def loss(params: Params, frozen: Any, key: Array, batch: dict[str, Array]) -> tuple:
        del frozen
        return denoise(params["text"], params["unet"], key, batch), {}

    val = {k: jnp.asarray(v[:CHUNK]) for k, v in sets["val"].items()}
    measure = jax.jit(lambda p: loss(p, None, jax.random.key(1), val)[0])
    shown = scenes["val"].captions[:SHOWN]
    draw_some = make_sampler(models, jnp.asarray(tokeniser(shown)), empty)

    def evaluate(state: train.TrainState) -> dict[str, Any]:
        params = jax.device_get(state.ema_params)
        x = np.asarray(draw_some(params)) / scaling
        pictures = decode(models.decoder, decoder, x)
        pairs = {"scene": scenes["val"].pictures[:SHOWN] / 255, "drawn": pictures}
        draw_grid(workdir / "figures" / "samples.png", pairs, shown)
        return {"loss": measure(params)}

    names = ("unet_widths", "text_width", "text_layers", "heads", "tokens", "dropout")
    return stages.train_stage(
        workdir / "denoiser",
        train.Task(init=first, loss=loss, draw=drawer(m.denoiser.batch_size)),
        m.denoiser,
        settings={n: m.to_dict()[n] for n in names},
        inputs={n: report.stage_digest(workdir / n) for n in ("tokenizer", "vae")},
        data=jax.tree.map(jnp.asarray, sets["train"]),
        seed=config.seed + 1,
        evaluate=evaluate,
    )


def make_sampler(models: Models, ids: Array, empty: Array) -> Callable[[Params], Array]:
    """Latents of captions under guidance, by DDIM, of the parameters of the denoiser."""

    @jax.jit
    def draw(params: Params) -> Array:
        read = lambda row: models.text.apply(params["text"], row)

        def one(row: Array, key: Array) -> Array:
            words = jnp.stack([read(empty), read(row)])

            def eps(x: Array, t: Array) -> Array:
                both = jax.vmap(lambda w: models.unet.apply(params["unet"], x, t, w))
                empty_eps, prompt_eps = both(words)
                return guided_prediction(empty_eps, prompt_eps, GUIDANCE)

            return sample(
                eps,
                models.schedule,
                key,
                models.latent,
                method="ddim",
                num_evaluations=EVALUATIONS,
            )

        return jax.vmap(one)(ids, jax.random.split(jax.random.key(2), len(ids)))

    return draw


def draw_grid(path: Path, rows: dict[str, np.ndarray], titles: Sequence[str] = ()) -> None:
    """A row of pictures in [0, 1] per entry; titles above the first one."""
    columns = max(map(len, rows.values()))
    fig, axes = figures.grid_of(columns * len(rows), columns, size=1.0)
    for i, (name, pictures) in enumerate(rows.items()):
        for j, picture in enumerate(pictures):
            ax = axes[i * columns + j]
            ax.imshow(picture, vmin=0, vmax=1)
            ax.set_xticks([])
            ax.set_yticks([])
            if not i and titles:
                ax.set_title("\n".join(titles[j].replace(",", "").split()), fontsize=4)
        axes[i * columns].set_ylabel(name, fontsize=6)
    figures.save(fig, path)


ADAPTED = r"attn[12]/(to_[qkv]|to_out_0)/kernel$"
"""Matrices of the U-Net that a low-rank adaptation changes."""


def train_aligned(
    config: ConfigDict,
    workdir: Path,
    models: Models,
    base: Params,
    sets: dict[str, Rows],
    empty: Array,
    *,
    low_rank: bool,
) -> Params:
    """The U-Net trained on, on rows of another mind, whole or by a low-rank change.

    Args:
        config: of the run.
        workdir: of the run.
        models: the networks.
        base: parameters of text encoder and U-Net; the text encoder stays as it is.
        sets: rows of training and validation.
        empty: identifiers of the empty caption.
        low_rank: whether only a change of low rank is trained.

    Returns:
        Parameters of the U-Net, or the change.
    """
    m, name = config.miniature, "lora" if low_rank else "aligned"
    section, denoise = m[name], make_loss(config, models, empty)

    def first(key: Array) -> Params:
        unet = base["unet"]
        return init_low_rank(unet, key, ADAPTED, m.rank) if low_rank else unet

    def loss(params: Params, frozen: Any, key: Array, batch: Any) -> tuple:
        unet = with_low_rank(frozen["unet"], params) if low_rank else params
        return denoise(frozen["text"], unet, key, batch), {}

    frozen = base if low_rank else {"text": base["text"]}
    val = {k: jnp.asarray(v[:CHUNK]) for k, v in sets["val"].items()}
    measure = jax.jit(lambda p: loss(p, frozen, jax.random.key(1), val)[0])
    return stages.train_stage(
        workdir / name,
        train.Task(init=first, loss=loss, draw=drawer(section.batch_size)),
        section,
        settings={"unsafe": m.unsafe, **({"rank": m.rank} if low_rank else {})},
        inputs={"denoiser": report.stage_digest(workdir / "denoiser")},
        data=jax.tree.map(jnp.asarray, sets["train"]),
        frozen=frozen,
        seed=config.seed + 2,
        evaluate=lambda state: {"loss": measure(jax.device_get(state.ema_params))},
    )
