r"""Real against simulated galaxies: what does the model of the real ones prefer?

The package ``galaxygrad`` brings two score models of galaxy images, 32 x 32, that other
people trained: one on the Hyper Suprime-Cam survey, one on simulated images in the manner
of the Zwicky Transient Facility. Simulated is the base here, real the expert. Nobody says
what distinguishes the two; the reward between them does, and held-out samples of both, and
crops of a photograph of the sky that neither has seen, say whether it is right.

    pip install --no-deps galaxygrad==0.1.0
    pip install scikit-image scikit-learn
    python docs/examples/galaxies.py OUT

The package is not imported: its weights are read as the arrays that they are, so that
nothing of it is run. OUT gets the card, the numbers and a figure; the photograph, the
Hubble deep field, comes with scikit-image. The same pair from the command line:

    diffreward extract --base docs/examples/galaxies.py:simulated \
        --expert docs/examples/galaxies.py:real --data OUT/train.npy --out card
"""

import sys
from importlib.metadata import distribution
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression

import diffreward as dr
from diffreward.diffusion import variance_preserving
from diffreward.measures import auroc, best_threshold
from diffreward.networks import AsTrajectory, InnerProductReward, TrajectoryMLP
from diffreward.report import figures
from diffreward.reward import log_ratio

TRAIN, TEST, STEPS = 2048, 256, 2000
"""Samples of each model that are drawn to learn from and to judge by; of the reward."""
SKY = 40
"""Crops of the photograph, the brightest that lie apart."""


def weights(name: str) -> list[np.ndarray]:
    """The arrays of a file of Equinox leaves, in their order."""
    path = Path(str(distribution("galaxygrad").locate_file("galaxygrad"))) / name
    with path.open("rb") as file:
        return [np.load(file, allow_pickle=False).astype(np.float32) for _ in range(54)]


# The model.
def model(survey: str) -> dr.DiffusionModel:
    """An MLP-mixer of 4 x 4 patches, which predicts the score; beta 1, time 0 to 10."""
    w = [jnp.asarray(x) for x in weights(f"eqx_{survey}_ScoreNet32.eqx")]
    centred = lambda h: (h - h.mean()) / jnp.sqrt(h.var() + 1e-5)
    norm = lambda h, k: centred(h) * w[k] + w[k + 1]
    layer = lambda h, k: w[k] @ h + w[k + 1][:, None]
    mlp = lambda h, k: layer(jax.nn.relu(layer(h, k)), k + 2)

    def score(y, u):
        planes = jnp.stack([y, jnp.full_like(y, u)]).reshape(2, 8, 4, 8, 4)
        h = (jnp.einsum("ciajb,ocab->oij", planes, w[0]) + w[1]).reshape(64, 64)
        for k in range(4, 52, 12):
            h = h + mlp(norm(h, k + 8).T, k).T
            h = h + mlp(norm(h.T, k + 10).T, k + 4)
        h, kernel = norm(h, 52).reshape(64, 8, 8), w[2][0, :, ::-1, ::-1]
        return jnp.einsum("cij,cab->iajb", h, kernel).reshape(y.shape) + w[3][0]

    process = variance_preserving(beta_min=10.0, beta_max=10.0, least=1e-3)
    return dr.DiffusionModel(score, process, "score")


# The rest asks it.
def simulated() -> dr.DiffusionModel:
    """The model of simulated galaxies, for the command line."""
    return model("ZTF")


def real() -> dr.DiffusionModel:
    """The model of real galaxies, for the command line."""
    return model("hsc")


def sky() -> tuple[np.ndarray, np.ndarray]:
    """Crops of the Hubble deep field around its brightest spots, as the models see images.

    Returns:
        The crops, and how many other bright spots each holds.
    """
    from skimage.data import hubble_deep_field  # noqa: PLC0415

    light = hubble_deep_field().astype(np.float32).mean(-1)
    light = np.maximum(light - np.median(light), 0)
    smooth = ndimage.gaussian_filter(light, 1.5)
    spots = (smooth == ndimage.maximum_filter(smooth, 9)) & (smooth > 30)
    rows, columns = np.nonzero(spots)
    crops, crowd = [], []
    for i in np.argsort(-smooth[rows, columns]):
        r, c = rows[i] - 16, columns[i] - 16
        crop = light[max(r, 0) : r + 32, max(c, 0) : c + 32]
        if crop.shape == (32, 32):
            crops.append(np.log1p(crop / crop.max()) / 0.1)
            crowd.append(int(spots[r : r + 32, c : c + 32].sum()) - 1)
    return np.stack(crops[:SKY]), np.array(crowd[:SKY])


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Of judgements, or nan where all are the same: every crop has one peak."""
    return float(spearmanr(x, y)[0]) if np.ptp(x) else np.nan


def draw(path: Path, rows: dict[str, np.ndarray]) -> None:
    """Rows of images under their names."""
    fig, axes = figures.grid_of(8 * len(rows), 8, size=1.3)
    for i, (name, images) in enumerate(rows.items()):
        for j in range(8):
            ax = axes[8 * i + j]
            ax.set_axis_off()
            if j < len(images):
                ax.imshow(images[j], vmin=0, vmax=7)
        axes[8 * i].set_title(name, fontsize=9, loc="left")
    figures.save(fig, path)


def main() -> None:
    """Draws samples of both, learns the reward, judges it; all goes to one folder."""
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    pair = dr.make_pair(simulated(), real())
    shape = (TRAIN + TEST, 32, 32)
    base, expert = (
        dr.draw_samples(m, pair.schedule, shape, seed=seed)
        for m, seed in ((pair.base, 1), (pair.expert, 2))
    )
    train, test = slice(TRAIN), slice(TRAIN, None)
    both = np.concatenate([base[test], expert[test]])
    np.save(out / "train.npy", np.concatenate([base[train], expert[train]]))
    reward = dr.fit(
        pair,
        base=base[train],
        expert=expert[train],
        steps=STEPS,
        batch_size=64,
        learning_rate=1e-3,
        network=AsTrajectory(InnerProductReward(TrajectoryMLP(256, 3))),
        workdir=out / "training",
        progress=True,
    )
    crops, crowd = sky()
    parts = {"simulated": base[test], "real": expert[test], "sky": crops}
    known = {"known real": expert[train][:TEST], "known simulated": base[train][:TEST]}
    one = lambda args: log_ratio(pair, *args).sum()
    ratio = jax.jit(lambda keys, x: jax.lax.map(one, (keys, x), batch_size=8))
    keys = jax.random.split(jax.random.key(0), TEST)
    ratios = {n: np.asarray(ratio(keys[: len(x)], x)) for n, x in (parts | known).items()}
    flat = lambda x: x.reshape(len(x), -1)
    seen, is_real = (
        np.concatenate([base[train], expert[train]]),
        np.arange(2 * TRAIN) >= TRAIN,
    )
    pixels = LogisticRegression(max_iter=500).fit(flat(seen), is_real)
    judges = {
        "reward": lambda x: dr.score(reward, x),
        "reward as ranking": lambda x: dr.score(reward, x, as_="ranking"),
        "logistic regression of pixels": lambda x: pixels.decision_function(flat(x)),
        "sum of the light": lambda x: np.expm1(0.1 * x).sum((1, 2)),
        "dimmest peak": lambda x: -x.max((1, 2)),
    }
    found = {"log ratio of the models": ratios}
    for name, judge in judges.items():
        found[name] = {n: np.asarray(judge(x)) for n, x in (parts | known).items()}
    for name, values in found.items():
        value, low, high = auroc(values["real"], values["simulated"])
        ranks = [f"{n} {rank_correlation(values[n], ratios[n]):.2f}" for n in parts]
        passed = values["sky"] > best_threshold(*(values[n] for n in known))
        print(
            f"{name}: AUROC {value:.3f} [{low:.3f}, {high:.3f}]; rank correlation with the "
            f"log ratio: {', '.join(ranks)}; crops that count as real: {passed.sum()} of "
            f"{len(crops)}, {passed[crowd == 0].sum()} of {(crowd == 0).sum()} alone",
            flush=True,
        )
    findings = dr.measure(reward, pair, both, base=base[test], expert=expert[test])
    dr.save(reward, out / "card", findings=findings, replace=True)
    findings.draw(out)
    for name in ("fraction_of_variance_unexplained", "agreement_correlation"):
        print(name, np.round(findings.measures[name], 3))
    order = lambda x: x[np.argsort(-dr.score(reward, x, as_="ranking"))]
    draw(
        out / "galaxies.png",
        {
            "simulated, highest reward": order(base[test]),
            "simulated, lowest": order(base[test])[::-1],
            "real, highest reward": order(expert[test]),
            "real, lowest": order(expert[test])[::-1],
            "sky, highest reward": order(crops),
            "sky, lowest": order(crops)[::-1],
        },
    )


if __name__ == "__main__":
    main()
