"""The NumPy program of a card."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from diffreward.card.numpy_export import HELPERS, numpy_source
from diffreward.reward import RANKING, UNITS, Reward

ROWS = 64
"""Samples per call of the network in the program."""

HEADER = '''"""Scores samples with the reward of this card. Needs NumPy only.

python score.py samples.npy [scores.npy] [--as ranking]

samples: (N, {shape}), in data units{parts}
scores, by default: {units}
--as ranking: {ranking}
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import numpy as np

SHAPE = {shape_tuple}
CONTEXT = {context}
ROWS = {rows}
UNITS = {{"value": "{units}", "ranking": "{ranking}"}}
WEIGHTS_SHA256 = "{blank}"


def read_safetensors(path):
    """Tensors of a safetensors file: a JSON header of given length, then the bytes."""
    raw = Path(path).read_bytes()
    if hashlib.sha256(raw).hexdigest() != WEIGHTS_SHA256:
        raise ValueError(f"{{path}} is not the file this program was made with")
    start = 8 + int.from_bytes(raw[:8], "little")
    kinds = {{"F32": np.float32, "I32": np.int32, "BOOL": np.bool_, "F64": np.float64}}
    header = json.loads(raw[8:start])
    header.pop("__metadata__", None)
    tensors = {{}}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        values = np.frombuffer(raw[start + first : start + last], kinds[entry["dtype"]])
        tensors[name] = values.reshape(entry["shape"])
    return tensors


try:
    W = read_safetensors(Path(__file__).with_name("weights.safetensors"))
except (ValueError, OSError) as error:
    if __name__ != "__main__":
        raise
    sys.exit(f"error: {{error}}")


def reward(x, t):
    """Reward of noised, normalised samples (N, ...) at levels t (N,)."""
    x, t = np.asarray(x, np.float32), np.broadcast_to(np.asarray(t, np.int32), len(x))
    values = []
    for i in range(0, len(x), ROWS):
        rows, levels = x[i : i + ROWS], t[i : i + ROWS]
        fill = np.resize(np.arange(len(rows)), ROWS)
        values.append(_network(rows[fill], levels[fill])[: len(rows)])
    return np.concatenate(values)


def pack(x, **context):
    """Samples (N, ...) and their contexts, by the names in CONTEXT, as one array."""
    parts = {{"x": x, **context}}
    if set(parts) != set(CONTEXT):
        raise ValueError(f"arrays named {{sorted(parts)}}, needed are {{sorted(CONTEXT)}}")
    flat = []
    for name, shape in CONTEXT.items():
        part = np.asarray(parts[name], np.float32)
        if part.shape != (len(x), *shape):
            raise ValueError(f"{{name}} has shape {{part.shape}}, not (N, *{{shape}})")
        flat.append(part.reshape(len(x), -1))
    return np.concatenate(flat, 1)


def score(x, seed=0, noises=4, as_="value"):
    """Scores of clean samples (N, ...) in data units; UNITS says what they are.

    As "value" the reward of the least noisy level, as "ranking" the mean over levels.
    """
    if as_ not in UNITS:
        raise ValueError(f"unknown form of a score {{as_!r}}; use value or ranking")
    x = np.asarray(x, np.float32)
    if x.shape[1:] != SHAPE:
        raise ValueError(f"samples have shape {{x.shape[1:]}}, the card needs {{SHAPE}}")
    if "normaliser/scale" in W:
        x = (x - W["normaliser/shift"]) / W["normaliser/scale"]
    a, s = W["schedule/sqrt_alpha_bar"], W["schedule/sigma"]
    levels = len(a) if as_ == "ranking" else 1
    eps = np.random.default_rng(seed).standard_normal((levels, noises, *SHAPE), np.float32)
    total = np.zeros(len(x), np.float64)
    for t in range(levels):
        for noise in eps[t]:
            x_t = a[t] * x + s[t] * noise
            if "pinned" in W:  # a condition is shown clean
                x_t = np.where(W["pinned"], x, x_t)
            total += reward(x_t, t)
    return (total / (levels * noises)).astype(np.float32)
'''

PARTS = """, the vectors of pack(); or
samples.npz with the arrays {parts}"""

FOOTER = """

def main():
    \"\"\"Prints the scores of a file of samples, or writes them.\"\"\"
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("samples")
    parser.add_argument("scores", nargs="?")
    parser.add_argument("--as", dest="as_", choices=UNITS, default="value")
    args = parser.parse_args()
    samples = np.load(args.samples)
    packed = samples if isinstance(samples, np.ndarray) else pack(**samples)
    scores = score(packed, as_=args.as_)
    print(UNITS[args.as_], file=sys.stderr)
    if args.scores is not None:
        np.save(args.scores, scores)
    else:
        print("\\n".join(f"{value:.6g}" for value in scores))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
"""

BLANK = "0" * 64
"""Stands in a program for the digest of weights that are not written yet."""


def program(reward: Reward, shape: tuple[int, ...]) -> tuple[str, Mapping[str, Any]]:
    """Source of the program, and the constants it reads beside the parameters.

    The source still lacks the digest of its weights, see :func:`seal`.

    Raises:
        NotExportable: if the network has no NumPy form.
    """
    flat = flatten_dict(reward.params, sep="/")
    named = {f"params/{k}": np.asarray(v) for k, v in flat.items()}

    def batched(weights: dict[str, Any], x: jax.Array, t: jax.Array) -> jax.Array:
        params = unflatten_dict(
            {k.removeprefix("params/"): v for k, v in weights.items()}, sep="/"
        )
        return jax.vmap(lambda x, t: reward.network.apply(params, x, t))(x, t)

    examples = (jnp.zeros((ROWS, *shape)), jnp.zeros(ROWS, jnp.int32))
    body, constants = numpy_source(batched, named, *examples)
    context = reward.context
    parts = {} if context is None else {"x": context.shape}
    parts |= {} if context is None else {part.name: part.shape for part in context.parts}
    header = HEADER.format(
        shape=", ".join(map(str, shape)),
        shape_tuple=tuple(shape),
        parts=PARTS.format(parts=", ".join(parts)) if parts else "",
        context=parts,
        rows=ROWS,
        blank=BLANK,
        units=UNITS[reward.units],
        ranking=RANKING,
    )
    network = f"\n\ndef _network(x0, x1):\n{body}"
    return header + HELPERS + network + FOOTER, constants


def seal(source: str, weights_sha256: str) -> str:
    """The program, which then refuses all weights but those of the digest."""
    return source.replace(BLANK, weights_sha256, 1)
