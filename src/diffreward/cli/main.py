"""Arguments of the commands, and what they say when something is wrong."""

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from diffreward import __version__
from diffreward.cli.arguments import Parser, names, path, positive, whole
from diffreward.cli.guard import guarded, start_jax
from diffreward.text import one_line, say

HELP = """Extract, measure and use the reward that separates two diffusion models.

  diffreward extract --base A --expert B --data D --out card
  diffreward score card samples.npy
  diffreward report card
"""
NORMALISERS = ("limits", "gaussian", "none")
NETWORKS = ("perceptron", "unet", "value")
METHODS = ("gradient_alignment", "residual_alignment", "distilled_energies")
"""Extractors that need two models and samples, and end in a card."""
MOST = 2**31 - 1
MODEL = (
    "a Diffuser checkpoint, a folder of a UNet1DModel or UNet2DModel with a scheduler or "
    "of a diffusion policy of LeRobot, or file.py:function, which is run and returns a "
    "diffreward.DiffusionModel (with --context, a function from a context to one)"
)
PIN_FIRST = "the first observation (entries from ACT_DIM on) is a condition"
COPY = (
    "which copy of the network, of a checkpoint that holds several: its key, ema or model, "
    "or the variant of a folder's weights; by default the averaged one, or the main weights"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status."""
    return guarded(lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> None:
    try:
        args = parser().parse_args(argv)
    except SystemExit:  # of --help, which may be read through a pipe
        if sys.stdout is not None:
            sys.stdout.flush()
        raise
    # Only now, for these take seconds to import.
    start_jax(args.cache)
    from diffreward.cli import commands

    with warnings.catch_warnings():
        warnings.showwarning = _note
        getattr(commands, args.run)(args)


def _note(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as one line, without the place in our code that gives it."""
    say(f"note: {one_line(message)}", sys.stderr)


def parser() -> Parser:
    """The parser of all commands."""
    top = Parser(
        prog="diffreward",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=__version__)
    top.add_argument(
        "--cache",
        default="",
        metavar="FOLDER",
        help="of compiled programs, or off; by default the variable DIFFREWARD_CACHE, or "
        "the user's cache",
    )
    kinds = top.add_subparsers(required=True, metavar="command")

    extract = kinds.add_parser(
        "extract",
        help="learn the reward that separates two checkpoints, and save it as a card",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    extract.set_defaults(run="extract")
    extract.add_argument("--base", type=path, required=True, help=MODEL)
    extract.add_argument("--expert", type=path, required=True, help="the same")
    _data(extract, required=True)
    extract.add_argument(
        "--expert-data", type=path, help="samples of the expert, to measure the ranking"
    )
    extract.add_argument("--out", type=path, required=True, help="folder of the card")
    extract.add_argument("--replace", action="store_true", help="overwrite a card")
    extract.add_argument(
        "--restart",
        action="store_true",
        help="give up the steps of an interrupted run of the same --out",
    )
    extract.add_argument(
        "--normaliser",
        choices=NORMALISERS,
        default="none",
        help="coordinates the models were trained in, fitted to --data",
    )
    for name in ("base", "expert"):
        extract.add_argument(
            f"--{name}-prediction",
            help="eps, x_0, v, score; by default what the checkpoint says, else detected",
        )
        extract.add_argument(f"--{name}-copy", help=COPY)
    extract.add_argument(
        "--pin-first",
        type=whole(0, MOST),
        metavar="ACT_DIM",
        help=PIN_FIRST,
    )
    extract.add_argument(
        "--method",
        choices=METHODS,
        default=METHODS[0],
        help="a network of its own (default), an energy that starts at one the base is "
        "distilled into, or the difference of two energies that both are distilled into",
    )
    extract.add_argument(
        "--steps", type=whole(1, 10**9), default=4000, help="optimiser steps"
    )
    extract.add_argument("--batch-size", type=whole(1, 2**20), default=128)
    extract.add_argument("--learning-rate", type=positive, default=1e-3)
    extract.add_argument(
        "--network",
        choices=NETWORKS,
        help="of the reward, for gradient_alignment: a perceptron; <x, f(x, t)> with a "
        "convolutional U-Net f, by default for images that it can halve, without a "
        "context; or the published reward of images",
    )
    extract.add_argument(
        "--width",
        type=whole(1, 2**16),
        help="of the reward network; by default 128, first level of image networks 32",
    )
    extract.add_argument(
        "--depth", type=whole(1, 1000), default=3, help="of the reward network; its levels"
    )
    extract.add_argument(
        "--test-samples",
        type=whole(3, MOST),
        default=512,
        help="held-out samples to measure on",
    )
    extract.add_argument("--seed", type=whole(0, 2**32 - 1), default=0)

    score = kinds.add_parser("score", help="score samples with a card")
    score.set_defaults(run="score")
    score.add_argument("card", type=path)
    score.add_argument(
        "data", type=path, help="samples: .npy, .npz, D4RL or robomimic .hdf5, OGBench .npz"
    )
    score.add_argument(
        "--horizon", type=whole(1, MOST), help="steps per sample of an .hdf5 file"
    )
    score.add_argument("--out", type=path, help="write .npy instead of printing")
    score.add_argument("--noises", type=whole(1, 2**16), default=4, help="noises per level")
    score.add_argument(
        "--as",
        dest="as_",
        choices=("value", "nats", "ranking"),
        default="value",
        help="value (default): the reward in the units of the card, at the least noisy "
        "level, up to a constant; nats: the same, refused if the card has other units; "
        "ranking: mean over all noise levels, which has no unit. The unit is printed to "
        "standard error",
    )
    score.add_argument("--seed", type=whole(0, 2**32 - 1), default=0)

    report = kinds.add_parser("report", help="what a card says of itself, as Markdown")
    report.set_defaults(run="report")
    report.add_argument("card", type=path)

    detect = kinds.add_parser(
        "detect", help="what does a checkpoint predict, and is it asked as it wants to be?"
    )
    detect.set_defaults(run="detect")
    detect.add_argument("--model", type=path, required=True, help=MODEL)
    detect.add_argument("--model-copy", help=COPY)
    _data(detect, required=True)
    detect.add_argument("--normaliser", choices=NORMALISERS, default="none")
    detect.add_argument(
        "--pin-first", type=whole(0, MOST), metavar="ACT_DIM", help=PIN_FIRST
    )
    detect.add_argument("--seed", type=whole(0, 2**32 - 1), default=0)
    return top


def _data(parser: argparse.ArgumentParser, required: bool) -> None:
    parser.add_argument(
        "--data",
        type=path,
        required=required,
        help="clean samples: .npy, .npz, D4RL or robomimic .hdf5, OGBench .npz",
    )
    parser.add_argument(
        "--context",
        type=names,
        default=[],
        metavar="NAMES",
        help="arrays of an .npz that are the condition of every sample, as goal,label; "
        "models given as Python are then functions of a context, {name: array}, and "
        "checkpoints are told what they say when it is missing",
    )
    parser.add_argument(
        "--horizon", type=whole(1, MOST), help="steps per sample of an .hdf5 file"
    )
