"""A model that nobody here made, under two labels: which alloys does a phase prefer?

The class-conditional diffusion model of HEA-TabDDPM (13 features of an alloy, four phases)
is a pair with real labels: its base is the model under one phase, its expert the same model
under another. Held-out alloys of both phases then say whether the reward between them is
right. Beside it stand the training-free log ratio of the two models and a classifier that
is trained on the labels, which the reward never sees. (The network itself may have seen all
of these alloys.)

    python docs/examples/alloys.py FOLDER

FOLDER holds ``alloys_tabddpm_ema.pt`` and ``alloys.csv``, both of the repository
priyansh-iitd26/HEA-TabDDPM (MIT licence). One pair as a card, from the command line:

    cp docs/examples/alloys.py FOLDER; cd FOLDER; python alloys.py . data.npy
    diffreward extract --base alloys.py:im --expert alloys.py:fcc --data data.npy --out card
"""

import csv
import sys
from itertools import combinations
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import QuantileTransformer

import diffreward as dr
from diffreward.diffusion import cosine, discrete
from diffreward.interop import read_checkpoint
from diffreward.measures import auroc
from diffreward.reward import log_ratio

HERE = Path(__file__).parent
PHASES = ("Im", "BCC_SS", "FCC_SS", "FCC_PLUS_BCC")
"""In the order of the network's labels. The files do not say it; the detector does."""
SCHEDULE = cosine(1000)


# The model.
def model(phase: str, folder: Path = HERE) -> dr.DiffusionModel:
    """The network under one label, in the coordinates that it was trained in."""
    saved = read_checkpoint(folder / "alloys_tabddpm_ema.pt")
    p = {name: jnp.asarray(value) for name, value in saved.items()}
    frequencies = 10_000.0 ** (-jnp.arange(64) / 64)
    linear = lambda name, x: p[f"{name}.weight"] @ x + p[f"{name}.bias"]
    label = jax.nn.silu(p["label_emb.weight"][PHASES.index(phase)])

    def eps(x, t):
        angle = jnp.float32(t) * frequencies
        time = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)])
        time = linear("time_embed.2", jax.nn.silu(linear("time_embed.0", time)))
        hidden = linear("proj", x) + time + label
        for name in ("mlp.blocks.0.linear", "mlp.blocks.1.linear"):
            hidden = jax.nn.relu(linear(name, hidden))
        return linear("mlp.head", hidden)

    return dr.DiffusionModel(eps, discrete(SCHEDULE, integer=False))


# The rest asks it.
def im() -> dr.DiffusionModel:
    """Intermetallics, for the command line."""
    return model("Im")


def fcc() -> dr.DiffusionModel:
    """Face-centred cubic solid solutions, for the command line."""
    return model("FCC_SS")


def alloys(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features, as the network saw them in training, and phases."""
    with (folder / "alloys.csv").open() as file:
        rows = list(csv.DictReader(file))
    phases = np.array([row.pop("Phase") for row in rows])
    features = np.array([list(row.values()) for row in rows], np.float64)
    normal = QuantileTransformer(output_distribution="normal")
    return normal.fit_transform(features).astype(np.float32), phases


def judge(
    folder: Path, phases: tuple[str, str], steps: int = 6000, split: int = 1
) -> dict[str, tuple]:
    """AUROC with its interval of every judge on held-out alloys of two phases."""
    x, every = alloys(folder)
    rows = np.random.default_rng(split).permutation(np.flatnonzero(np.isin(every, phases)))
    train, test = rows[::2], rows[1::2]
    pair = dr.make_pair(*(model(phase, folder) for phase in phases))
    reward = dr.fit(pair, x[train], steps=steps)
    ratio = jax.jit(jax.vmap(lambda key, x: log_ratio(pair, key, x).sum()))
    keys = jax.random.split(jax.random.key(0), len(test))
    labels = LogisticRegression(max_iter=1000).fit(x[train], every[train] == phases[1])
    values = {
        "reward": dr.score(reward, x[test]),
        "reward as ranking": dr.score(reward, x[test], as_="ranking"),
        "log ratio of the models": np.asarray(ratio(keys, jnp.asarray(x[test]))),
        "logistic regression": labels.decision_function(x[test]),
    }
    good = every[test] == phases[1]
    return {name: tuple(auroc(v[good], v[~good])) for name, v in values.items()}


def main() -> None:
    """All pairs of phases; or the alloys of one pair as a file of samples."""
    folder = Path(sys.argv[1])
    if len(sys.argv) > 2:
        x, every = alloys(folder)
        np.save(sys.argv[2], x[np.isin(every, ("Im", "FCC_SS"))])
        return
    for phases in combinations(PHASES, 2):
        found = judge(folder, phases)
        line = ", ".join(
            f"{k} {v:.3f} [{a:.3f}, {b:.3f}]" for k, (v, a, b) in found.items()
        )
        print(f"{phases[0]} -> {phases[1]}: {line}", flush=True)


if __name__ == "__main__":
    main()
