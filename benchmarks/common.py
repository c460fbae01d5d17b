"""What every timing question shares: interleaved timing, FLOP counts, the report."""

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Case(NamedTuple):
    """One row of a report: the same work in this project and in PyTorch."""

    name: str
    ours: Callable[[], Any]
    torch: Callable[[], Any]
    flops: float
    """Multiplications and additions of the PyTorch side's matrix products."""
    target: float
    """Largest time of ours / time of PyTorch that we accept."""


class Timing(NamedTuple):
    """Medians of one case."""

    name: str
    ours_ms: float
    torch_ms: float
    ratio: float
    target: float
    gflop: float
    share_of_peak: float
    """FLOPs over our time, relative to a large float32 matrix product."""


def require_torch() -> None:
    """Exits with one line if PyTorch is missing."""
    if importlib.util.find_spec("torch") is None:
        sys.exit("benchmarks compare with PyTorch: pip install -e '.[bench]'")


def count_flops(step: Callable[[], Any]) -> float:
    """FLOPs of convolutions and matrix products in one PyTorch step, gradients included.

    Both sides are credited with this number, so work that one of them could save or
    adds does not flatter it.
    """
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    # PyTorch's own FlopCounterMode hooks modules, which gradients by an input refuse.
    class Counter(TorchDispatchMode):
        total = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            kwargs = kwargs or {}
            out = func(*args, **kwargs)
            formula = flop_registry.get(func._overloadpacket)
            if formula is not None:
                self.total += formula(*args, **kwargs, out_val=out)
            return out

    with Counter() as counter:
        step()
    return counter.total


def time_interleaved(
    a: Callable[[], Any], b: Callable[[], Any], *, repeats: int, warmup: int = 2
) -> tuple[float, float]:
    """Median seconds of both, run in turn (A B A B ...).

    Slow drifts of the machine (frequency, neighbours) then fall on both alike.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(warmup + repeats):
        for fn, seconds in zip((a, b), times, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(fn())
            if i >= warmup:
                seconds.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def peak_flops(size: int = 2048, repeats: int = 10) -> float:
    """FLOP/s of the fastest of several large float32 matrix products in JAX."""
    x = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(x, x))
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(product(x, x))
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def main(description: str, cases: dict[str, Callable[[], Case]]) -> None:
    """Runs the cases named on the command line (all by default) and reports them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("cases", nargs="*", metavar="case", help=", ".join(cases))
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    unknown = [name for name in args.cases if name not in cases]
    if unknown:
        parser.error(f"unknown case {unknown[0]!r}; use: {', '.join(cases)}")
    require_torch()
    import torch

    peak = peak_flops()
    print(
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}, "
        f"torch {torch.__version__}, float32 peak {peak / 1e9:.0f} GFLOP/s"
    )
    header = f"{'case':<22}{'ours ms':>9}{'torch ms':>10}{'ratio':>7}{'target':>8}"
    print(header + f"{'GFLOP':>9}{'of peak':>9}")
    rows = []
    for name in args.cases or cases:
        case = cases[name]()
        ours, theirs = time_interleaved(case.ours, case.torch, repeats=args.repeats)
        row = Timing(
            name=case.name,
            ours_ms=1e3 * ours,
            torch_ms=1e3 * theirs,
            ratio=ours / theirs,
            target=case.target,
            gflop=case.flops / 1e9,
            share_of_peak=case.flops / ours / peak,
        )
        rows.append(row)
        print(
            f"{row.name:<22}{row.ours_ms:>9.1f}{row.torch_ms:>10.1f}{row.ratio:>7.2f}"
            f"{row.target:>8.2f}{row.gflop:>9.2f}{row.share_of_peak:>9.0%}",
            flush=True,
        )
    if args.json:
        record = {"peak_gflops": peak / 1e9, "cases": [row._asdict() for row in rows]}
        args.json.write_text(json.dumps(record, indent=2) + "\n")
