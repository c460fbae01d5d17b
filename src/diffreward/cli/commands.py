"""What the commands do."""

import argparse
import shutil

import jax
import numpy as np

from diffreward import card
from diffreward.cli.measure import measure
from diffreward.cli.models import Checkpoint, open_checkpoint
from diffreward.cli.page import page
from diffreward.cli.samples import Samples, fit_normaliser, read_samples
from diffreward.data import Normaliser, normalise, split_episodes
from diffreward.diffusion import (
    Detection,
    check_prediction,
    detect_prediction,
    pinned_observations,
)
from diffreward.extract import FitSettings, Source, fit
from diffreward.report import markdown
from diffreward.reward import make_pair

SURE = 0.95
"""Confidence from which a detected kind of prediction is taken."""


def extract(args: argparse.Namespace) -> None:
    """Two checkpoints and samples in, a card out."""
    if args.out.exists() and not args.replace:
        raise ValueError(f"{args.out} exists; choose another --out or give --replace")
    samples = read_samples(args.data, args.horizon)
    expert_samples = _expert_samples(args, samples)
    normaliser = fit_normaliser(args.normaliser, samples)
    base, expert = (
        _labelled(
            open_checkpoint(
                getattr(args, name), samples.shape, getattr(args, f"{name}_copy")
            ),
            getattr(args, f"{name}_prediction"),
            samples,
            normaliser,
            args.seed,
        )
        for name in ("base", "expert")
    )
    pair = make_pair(base.model(normaliser), expert.model(normaliser))
    pinned = _pinned(args.pin_first, samples.shape)

    rows = _split(samples, args.seed)
    x = samples.x if normaliser is None else normalise(normaliser, samples.x)
    _say(
        f"{len(rows['train'])} samples to learn from, {len(rows['test'])} held out, "
        f"{pair.schedule.num_steps} noise levels"
    )
    settings = FitSettings(
        steps=args.steps,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        width=args.width,
        depth=args.depth,
        progress=True,
        steps_per_dispatch=50,
    )
    source = Source(pair=pair, base=x[rows["train"]], pinned=pinned, normaliser=normaliser)
    # The run stands beside the card until the card does: an interrupted one goes on.
    work = args.out.with_name(args.out.name + ".training")
    reward = fit("gradient_alignment", source, settings, seed=args.seed, workdir=work)
    _say("measuring")
    test = rows["test"][:: max(1, len(rows["test"]) // args.test_samples)]
    found = measure(
        reward,
        pair,
        x[test],
        samples.group[test],
        base=samples.x[test],
        expert=expert_samples,
        pinned=pinned,
        seed=args.seed,
    )
    provenance = {
        "base": base.provenance(),
        "expert": expert.provenance(),
        "data": {"source": samples.source, "sha256": card.sha256(args.data)},
        "settings": {"steps": args.steps, "batch size": args.batch_size, "seed": args.seed},
        "normaliser": args.normaliser,
    }
    figure = found.draw(work)
    reward.save(
        args.out,
        samples.shape,
        provenance=provenance,
        measures=found.measures,
        limits=found.limits,
        figures={figure.name: figure},
        replace=args.replace,
    )
    shutil.rmtree(work)
    _say(page(args.out))


def score(args: argparse.Namespace) -> None:
    """One number per sample, printed or written."""
    reward, about = card.load(args.card), card.read_card(args.card)
    samples = read_samples(args.data, args.horizon or about["shape"][0])
    if list(samples.shape) != about["shape"]:
        raise ValueError(
            f"{args.data}: samples are shaped {samples.shape}, the card needs "
            f"{tuple(about['shape'])}"
        )
    values = card.score_samples(reward, samples.x, seed=args.seed, num_noises=args.noises)
    if args.out is None:
        _say("\n".join(f"{value:.6g}" for value in values))
    else:
        np.save(args.out, values)


def report(args: argparse.Namespace) -> None:
    """The card as a page; damaged cards are refused."""
    card.load(args.card)
    _say(page(args.card))


def detect(args: argparse.Namespace) -> None:
    """What a checkpoint predicts, and how sure that is."""
    samples = read_samples(args.data, args.horizon)
    normaliser = fit_normaliser(args.normaliser, samples)
    checkpoint = open_checkpoint(args.model, samples.shape, args.model_copy)
    found = _detect(checkpoint, samples, normaliser, args.seed)
    rows = [[kind, share] for kind, share in found.explained.items()]
    _say(markdown(["read as", "explained beyond mean and variance (1: all)"], rows))
    _say(f"{found.prediction}, confidence {found.confidence:.2f}")
    if checkpoint.prediction is not None:
        _say(f"the checkpoint says: {checkpoint.prediction}")


def _labelled(
    checkpoint: Checkpoint,
    told: str | None,
    samples: Samples,
    normaliser: Normaliser | None,
    seed: int,
) -> Checkpoint:
    """The checkpoint with its kind of prediction: told, written in it, or detected."""
    if told is not None:
        check_prediction(told)
        return checkpoint._replace(prediction=told)
    if checkpoint.prediction is not None:
        return checkpoint
    found = _detect(checkpoint, samples, normaliser, seed)
    if found.confidence < SURE:
        raise ValueError(
            f"{checkpoint.path} does not say what it predicts, and the data do not tell "
            f"(best: {found.prediction}, confidence {found.confidence:.2f}); give "
            "--base-prediction or --expert-prediction, and check --normaliser"
        )
    _say(
        f"{checkpoint.path} predicts {found.prediction} (confidence {found.confidence:.2f})"
    )
    return checkpoint._replace(prediction=found.prediction, confidence=found.confidence)


def _detect(
    checkpoint: Checkpoint, samples: Samples, normaliser: Normaliser | None, seed: int
) -> Detection:
    model = checkpoint.model(normaliser)
    picks = np.random.default_rng(seed).choice(len(samples.x), min(256, len(samples.x)))
    x = samples.x[picks]
    x = x if normaliser is None else normalise(normaliser, x)
    return detect_prediction(model.apply, model.process, x, jax.random.key(seed))


def _expert_samples(args: argparse.Namespace, samples: Samples) -> np.ndarray | None:
    if args.expert_data is None:
        return None
    others = read_samples(args.expert_data, args.horizon)
    if others.shape != samples.shape:
        raise ValueError(
            f"samples of {samples.source} are shaped {samples.shape}, those of "
            f"{others.source} {others.shape}"
        )
    return others.x[:: max(1, len(others.x) // args.test_samples)]


def _pinned(act_dim: int | None, shape: tuple[int, ...]) -> jax.Array | None:
    """The first observation, where it is a condition."""
    if act_dim is None:
        return None
    if not 0 <= act_dim < shape[1]:
        raise ValueError(f"--pin-first {act_dim} does not fit samples shaped {shape}")
    return pinned_observations(shape[0], act_dim, shape[1] - act_dim)


def _split(samples: Samples, seed: int) -> dict[str, np.ndarray]:
    """Rows of train, val and test; groups are never cut."""
    count = int(samples.group.max()) + 1
    try:
        groups = split_episodes(count, seed)
    except ValueError as error:
        raise ValueError(f"{samples.source}: {error}") from error
    return {k: np.flatnonzero(np.isin(samples.group, g)) for k, g in groups.items()}


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201
