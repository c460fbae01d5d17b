"""Arguments of the commands."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from diffreward import __version__
from diffreward.cli import commands
from diffreward.cli.samples import NORMALISERS

HELP = """Extract, measure and use the reward that separates two diffusion models.

  diffreward extract --base A --expert B --data D --out card
  diffreward score card samples.npy
  diffreward report card
"""

COPY = (
    "which copy of the network, of a checkpoint that holds several: its key, ema or model, "
    "or the variant of a folder's weights; by default the averaged one, or the main weights"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status."""
    args = parser().parse_args(argv)
    try:
        args.run(args)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = argparse.ArgumentParser(
        prog="diffreward",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=__version__)
    kinds = top.add_subparsers(required=True, metavar="command")

    extract = kinds.add_parser(
        "extract",
        help="learn the reward that separates two checkpoints, and save it as a card",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    extract.set_defaults(run=commands.extract)
    extract.add_argument("--base", type=Path, required=True, help="checkpoint")
    extract.add_argument("--expert", type=Path, required=True, help="checkpoint")
    _data(extract, required=True)
    extract.add_argument(
        "--expert-data", type=Path, help="samples of the expert, to measure the ranking"
    )
    extract.add_argument("--out", type=Path, required=True, help="folder of the card")
    extract.add_argument("--replace", action="store_true", help="overwrite a card")
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
        type=int,
        metavar="ACT_DIM",
        help="the first observation (entries from ACT_DIM on) is a condition",
    )
    extract.add_argument("--steps", type=int, default=4000, help="optimiser steps")
    extract.add_argument("--batch-size", type=int, default=128)
    extract.add_argument("--learning-rate", type=float, default=1e-3)
    extract.add_argument("--width", type=int, default=128, help="of the reward network")
    extract.add_argument("--depth", type=int, default=3, help="of the reward network")
    extract.add_argument(
        "--test-samples", type=int, default=512, help="held-out samples to measure on"
    )
    extract.add_argument("--seed", type=int, default=0)

    score = kinds.add_parser("score", help="score samples with a card")
    score.set_defaults(run=commands.score)
    score.add_argument("card", type=Path)
    score.add_argument("data", type=Path, help="samples: .npy, .npz or D4RL .hdf5")
    score.add_argument("--horizon", type=int, help="steps per sample of an .hdf5 file")
    score.add_argument("--out", type=Path, help="write .npy instead of printing")
    score.add_argument("--noises", type=int, default=4, help="noises per level")
    score.add_argument("--seed", type=int, default=0)

    report = kinds.add_parser("report", help="what a card says of itself, as Markdown")
    report.set_defaults(run=commands.report)
    report.add_argument("card", type=Path)

    detect = kinds.add_parser("detect", help="what does a checkpoint predict?")
    detect.set_defaults(run=commands.detect)
    detect.add_argument("--model", type=Path, required=True, help="checkpoint")
    detect.add_argument("--model-copy", help=COPY)
    _data(detect, required=True)
    detect.add_argument("--normaliser", choices=NORMALISERS, default="none")
    detect.add_argument("--seed", type=int, default=0)
    return top


def _data(parser: argparse.ArgumentParser, required: bool) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        required=required,
        help="clean samples: .npy, .npz or D4RL .hdf5",
    )
    parser.add_argument("--horizon", type=int, help="steps per sample of an .hdf5 file")
