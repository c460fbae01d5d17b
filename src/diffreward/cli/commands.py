"""What the commands do."""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffreward import card, files
from diffreward.arguments import check_noise_prediction
from diffreward.cli.labels import (
    SURE,
    detect_asking,
    detect_model,
    open_for,
    open_labelled,
    said_by,
    said_of_asking,
)
from diffreward.cli.models import coordinates
from diffreward.cli.page import page
from diffreward.cli.places import (
    check_card_place,
    check_scores_place,
    claimed,
    work_folder,
)
from diffreward.cli.python_model import PythonModel, reference
from diffreward.cli.samples import Samples, fit_normaliser, read_samples
from diffreward.data import split_episodes, write_array
from diffreward.diffusion import check_prediction, pinned_observations
from diffreward.extract import (
    IMAGE_NETWORKS,
    OtherRun,
    Source,
    Training,
    fit,
    image_network,
    run_record,
)
from diffreward.findings import measure
from diffreward.report import markdown
from diffreward.reward import (
    Pair,
    make_pair,
    relative_score,
    score_samples,
    score_units,
)
from diffreward.text import say

GROUPS = 3
"""Held-out episodes that the measures need at least."""


def extract(args: argparse.Namespace) -> None:
    """Two checkpoints and samples in, a card out."""
    for told in (args.base_prediction, args.expert_prediction):
        if told is not None:
            check_prediction(told)
    given = [p for p in (args.base, args.expert, args.data, args.expert_data) if p]
    inputs = [(reference(p) or (p,))[0] for p in given]
    check_card_place(args.out, inputs, replace=args.replace)
    work = work_folder(args.out)
    if args.out.exists() and not (args.replace or files.is_marked(work)):
        raise ValueError(f"{args.out} exists; choose another --out or give --replace")
    with files.recorded(), claimed(work, restart=args.restart):
        _extract(args, work)


def _extract(args: argparse.Namespace, work: Path) -> None:
    """The work of :func:`extract`, in a folder of its own beside the card."""
    samples, data = _read(args.data, args.horizon, args.context)
    network = _network(args, samples)
    expert_samples, expert_data = _expert_samples(args, samples)
    fitted = fit_normaliser(args.normaliser, samples)
    layout = samples.layout
    opened = {}
    for name in ("base", "expert"):
        opened[name] = open_labelled(
            getattr(args, name),
            getattr(args, f"{name}_copy"),
            getattr(args, f"{name}_prediction"),
            samples,
            fitted,
            args.seed,
        )
    base, expert = (opened[name][0] for name in ("base", "expert"))
    normaliser = coordinates(base, fitted, layout, expert)
    provenance: dict[str, Any] = {name: about for name, (_, about) in opened.items()}
    pinned = _pinned(args.pin_first, samples.shape)
    models = base.model(normaliser), expert.model(normaliser)
    pair = make_pair(*models, pinned=pinned, context=layout)
    x = samples.within(normaliser, layout)
    for name in ("base", "expert"):
        check_noise_prediction(str(getattr(args, name)), getattr(pair, name), x.shape[1:])

    rows = _split(samples, args.seed)
    test = rows["test"][:: max(1, len(rows["test"]) // args.test_samples)]
    _check_groups(samples, test)
    _check_difference(pair, x[test])
    say(
        f"{len(rows['train'])} samples to learn from, {len(rows['test'])} held out, "
        f"{pair.schedule.num_steps} noise levels"
    )
    settings = Training(
        steps=args.steps,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        **network,
        progress=True,
        steps_per_dispatch=50,
    )
    source = Source(
        pair=pair,
        base=x[rows["train"]],
        pinned=pair.pinned,
        normaliser=normaliser if layout is None else layout.normaliser(normaliser),
    )
    method = args.method
    # Where a folder lies is no part of what it is.
    models = {n: {k: v for k, v in provenance[n].items() if k != "path"} for n in opened}
    if any(isinstance(model, PythonModel) for model, _ in opened.values()):
        # What a function reads is not known: what it answers tells runs apart.
        models = None
    run = run_record(method, source, settings, args.seed, models)
    provenance |= {
        "data": data,
        **({} if expert_data is None else {"expert data": expert_data}),
        "settings": {"steps": args.steps, "batch size": args.batch_size, "seed": args.seed},
        "normaliser": args.normaliser if normaliser is fitted else "declared by the base",
        "run": hashlib.sha256(json.dumps(run).encode()).hexdigest(),
    }
    if args.out.exists() and not args.replace:
        # Stopped after the card was written, before its work folder was removed.
        if card.read_card(args.out)["provenance"].get("run") != provenance["run"]:
            raise ValueError(f"{args.out} exists; choose another --out or give --replace")
        files.discard(work)
        say(page(args.out))
        return
    # The run stands beside the card until the card does: an interrupted one goes on.
    try:
        reward = fit(method, source, settings, seed=args.seed, workdir=work, models=models)
    except OtherRun as other:
        raise ValueError(
            f"{work} holds unfinished work of another run: {other.difference}; finish it "
            "with its own arguments, choose another --out, or give it up with --restart"
        ) from None
    say("measuring")
    found = measure(
        reward,
        pair,
        samples.taken(test),
        groups=samples.group[test],
        expert=expert_samples,
        seed=args.seed,
    )
    figure = found.draw(work)
    card.save(
        reward,
        args.out,
        x.shape[1:],
        provenance=provenance,
        measures=found.measures,
        limits=found.limits,
        figures={figure.name: figure},
        replace=args.replace,
    )
    files.discard(work)
    say(page(args.out))


def score(args: argparse.Namespace) -> None:
    """One number per sample, printed or written."""
    if args.out is not None:
        check_scores_place(args.out, [args.data, args.card])
    reward, about = card.open_card(args.card)
    layout = reward.context
    shape = tuple(about["shape"]) if layout is None else layout.shape
    names = [] if layout is None else [part.name for part in layout.parts]
    samples = read_samples(args.data, args.horizon or shape[0], names)
    if samples.shape != shape:
        raise ValueError(
            f"{args.data}: samples are shaped {samples.shape}, the card needs {shape}"
        )
    about = score_units(reward, args.as_)
    rows = reward.rows(samples.x, samples.context or None)
    values = score_samples(
        reward, rows, seed=args.seed, num_noises=args.noises, as_=args.as_
    )
    say(about, sys.stderr)  # beside the numbers, which stay bare
    if args.out is None:
        say("\n".join(f"{value:.6g}" for value in values))
    else:
        write_array(args.out, values)


def report(args: argparse.Namespace) -> None:
    """The card as a page; damaged cards are refused."""
    say(page(args.card))


def detect(args: argparse.Namespace) -> None:
    """What a checkpoint predicts and how it is asked, and how sure that is."""
    samples = read_samples(args.data, args.horizon, args.context)
    normaliser = fit_normaliser(args.normaliser, samples)
    opened = open_for(args.model, args.model_copy, samples, normaliser)
    normaliser = coordinates(opened, normaliser, samples.layout)
    pinned = _pinned(args.pin_first, samples.shape)
    found = detect_model(opened, samples, normaliser, args.seed, pinned)
    rows = [[kind, share] for kind, share in found.explained.items()]
    say(markdown(["read as", "explained beyond mean and variance (1: all)"], rows))
    say(f"{found.prediction}, confidence {found.confidence:.2f}")
    told = said_by(opened, samples.layout)
    if told is not None:
        say(f"the checkpoint says: {told}")
    if told is None and found.confidence < SURE:
        return
    kind = told or found.prediction
    asked = detect_asking(opened, samples, normaliser, args.seed, pinned, kind)
    rows = [[way, share] for way, share in asked.explained.items()]
    say(markdown([f"asked for {kind}", "explained beyond mean and variance"], rows))
    say(said_of_asking(asked))


def _read(
    path: Path, horizon: int | None, context: list[str]
) -> tuple[Samples, dict[str, Any]]:
    """Samples, and what the card says of them: digests of the very bytes they are from."""
    with files.recorded() as used:
        samples = read_samples(path, horizon, context)
    digest = files.digest(used, path) if used else card.sha256(path)
    return samples, {"source": samples.source, "sha256": digest}


def _network(args: argparse.Namespace, samples: Samples) -> dict[str, Any]:
    """Width, depth and, where it is no perceptron, network of a reward."""
    images = len(samples.shape) == 3 and not samples.context
    plain = args.method == "gradient_alignment"
    name = args.network or ("unet" if images and plain else "perceptron")
    if name != "perceptron":
        if not plain:
            raise ValueError(
                f"--network {name} is for --method gradient_alignment; {args.method} "
                "trains energies with a perceptron"
            )
        if samples.context:
            raise ValueError(f"--network {name} takes no --context; use perceptron")
        width = args.width or IMAGE_NETWORKS[name]
        try:
            network = image_network(name, samples.shape, width, args.depth)
        except ValueError as reason:
            if args.network is not None:
                raise
            say(f"note: the reward is a perceptron, for {reason}", sys.stderr)
        else:
            return {"network": network, "width": width, "depth": args.depth}
    return {"width": args.width or 128, "depth": args.depth}


def _check_groups(samples: Samples, test: np.ndarray) -> None:
    count = len(np.unique(samples.group[test]))
    if count < GROUPS:
        raise ValueError(
            f"{samples.source}: {count} of its episodes are held out, measuring needs "
            f"{GROUPS}; give more data, or more --test-samples"
        )


def _check_difference(pair: Pair, x: np.ndarray) -> None:
    """Two models that answer alike have no reward; better said before the training."""
    few = np.asarray(x[:8], np.float32)
    levels = np.linspace(0, pair.schedule.num_steps - 1, len(few)).astype(np.int32)
    found = jax.jit(jax.vmap(lambda x, t: relative_score(pair, x, t)))(few, levels)
    if not np.isfinite(found).all():
        raise ValueError("the models answer samples of the data with numbers not finite")
    if not np.any(found):
        raise ValueError(
            "base and expert are the same model: their scores differ nowhere, so there is "
            "no reward; check --base and --expert"
        )


def _expert_samples(
    args: argparse.Namespace, samples: Samples
) -> tuple[Any, dict[str, Any] | None]:
    if args.expert_data is None:
        return None, None
    others, about = _read(args.expert_data, args.horizon, args.context)
    if others.shape != samples.shape:
        raise ValueError(
            f"samples of {samples.source} are shaped {samples.shape}, those of "
            f"{others.source} {others.shape}"
        )
    some = slice(None, None, max(1, len(others.x) // args.test_samples))
    return others.taken(some), about


def _pinned(act_dim: int | None, shape: tuple[int, ...]) -> jax.Array | None:
    """The first observation, where it is a condition."""
    if act_dim is None:
        return None
    if len(shape) != 2 or not 0 <= act_dim < shape[1]:
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
