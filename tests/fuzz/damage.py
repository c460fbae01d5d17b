"""Damaged inputs, the same in every run, and what a reader may do with them.

A reader gives a value or refuses in one line: anything else is a fault of the reader,
whatever was done to the file.
"""

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

MEMORY = 200 * 2**20
"""Bytes that a reader may use for a small file, however damaged."""


def damaged(
    data: bytes, rng: np.random.Generator, count: int = 40
) -> Iterator[tuple[str, bytes]]:
    """A whole file, damaged in ``count`` ways: cut, flipped, overwritten, mixed up.

    Args:
        data: bytes of the whole file.
        rng: decides where.
        count: of damaged files; the first are the same for every file.
    """
    fixed = {
        "empty": b"",
        "one byte": data[:1],
        "half": data[: len(data) // 2],
        "without its last byte": data[:-1],
        "without its first byte": data[1:],
        "twice": data * 2,
        "zeros": bytes(len(data)),
        "text": b"not this file\n",
    }
    yield from list(fixed.items())[:count]
    kinds = (_cut, _flip, _overwrite, _double, _swap)
    for i in range(count - len(fixed)):
        damage = kinds[i % len(kinds)]
        name = damage.__name__.strip("_")
        yield f"{name} {i}", damage(data, rng)


def outcome(read: Callable[[], Any], path: Path, memory: int = MEMORY) -> str | None:
    """Reads a file that may be damaged; None if that worked, else the error's one line.

    Args:
        read: calls the reader.
        path: what the message must name.
        memory: bytes that reading may use at most.

    Raises:
        AssertionError: if anything but a ValueError or OSError of one line is raised, the
            file is not named, or more memory is used.
    """
    tracemalloc.start()
    try:
        read()
        message = None
    except (ValueError, OSError) as error:
        message = str(error)
    except BaseException as error:
        raise AssertionError(f"{path}: {type(error).__name__} escapes: {error}") from error
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < memory, f"{path}: {peak / 2**20:.0f} MiB used"
    if message is not None:
        assert "\n" not in message, f"more than one line: {message}"
        assert path.name in message, f"{path.name} is not named: {message}"
    return message


def _places(data: bytes, rng: np.random.Generator) -> tuple[int, int]:
    one, two = sorted(int(i) for i in rng.integers(0, len(data), 2))
    return one, min(two, one + 64)


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(0, len(data)))]


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    changed, place = bytearray(data), int(rng.integers(0, len(data)))
    changed[place] ^= 1 << int(rng.integers(0, 8))
    return bytes(changed)


def _overwrite(data: bytes, rng: np.random.Generator) -> bytes:
    start, stop = _places(data, rng)
    return data[:start] + rng.bytes(stop - start) + data[stop:]


def _double(data: bytes, rng: np.random.Generator) -> bytes:
    start, stop = _places(data, rng)
    return data[:stop] + data[start:]


def _swap(data: bytes, rng: np.random.Generator) -> bytes:
    start, stop = _places(data, rng)
    return data[:start] + data[start:stop][::-1] + data[stop:]
