# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From two checkpoints to a reward card
#
# You hold two diffusion models, a *base* and an *expert*, in somebody's format. This
# notebook reads them, brings them into one frame, extracts the reward that separates
# them, asks how far it can be trusted, and saves it as a card that anyone can use.
#
# It is a script in cells: `python docs/tutorial.py` runs it in about two minutes on two
# CPU cores, Jupytext and editors open it as a notebook. Its results here are those of the
# run that made this page.

# %%
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import diffreward
from diffreward import train
from diffreward.data import laws
from diffreward.diffusion import (
    DiffusionModel,
    cosine,
    denoising_loss,
    detect_prediction,
    discrete,
    draw_levels,
    sample,
)
from diffreward.extract import Source, Training, fit
from diffreward.interop import load_model, save_scheduler, save_unet1d
from diffreward.networks import TemporalUnet
from diffreward.reward import conservativity, make_pair, score_samples
from diffreward.steer import guide

QUICK = "--quick" in sys.argv
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## 0. Two checkpoints
#
# Skip this if you have your own. Trajectories of a linear system, eight steps of four
# numbers; the expert's drift to the right. Both models are ordinary U-Nets, written as
# Hugging Face `UNet1DModel` folders.

# %%
HORIZON, DIM = 8, 4
turn = jnp.array(
    [[0.9, -0.3, 0, 0], [0.3, 0.9, 0, 0], [0, 0, 0.8, 0.1], [0, 0, 0, 0.9]], jnp.float32
)


def trajectories(drift: float, key: jax.Array, count: int = 2000) -> jax.Array:
    """Samples (count, HORIZON, DIM) of the law with the given drift."""
    move = jnp.array([drift, 0.0, -drift, 0.0])
    law = laws.linear_gaussian_trajectories(turn, move, 0.3, HORIZON)
    rows = jax.vmap(laws.sample, (None, 0))(law, jax.random.split(key, count))
    return rows.reshape(count, HORIZON, DIM)


data = {
    "base": trajectories(0.0, jax.random.key(1)),
    "expert": trajectories(0.25, jax.random.key(2)),
}
schedule = cosine(10)
network = TemporalUnet(16, (1, 2))


def denoise(params, frozen, key, x_0):
    """Mean denoising loss of a batch."""
    level_key, noise_key = jax.random.split(key)
    t = draw_levels(level_key, len(x_0), schedule.num_steps)
    eps = jax.random.normal(noise_key, x_0.shape)
    predict = lambda x, t: network.apply(params, x, t)
    one = lambda x_0, t, eps: denoising_loss(predict, schedule, x_0, t, eps)[0]
    return jax.vmap(one)(x_0, t, eps).mean(), {}


task = train.Task(
    init=lambda key: network.init(key, jnp.zeros((HORIZON, DIM)), jnp.int32(0)),
    loss=denoise,
    draw=lambda rows, key: rows[jax.random.randint(key, (64,), 0, len(rows))],
)
STEPS = 200 if QUICK else 2000
state = train.optimise(
    task,
    train.make_optimiser(2e-3, steps=STEPS, schedule="cosine"),
    data=jnp.stack([data["base"], data["expert"]]),
    steps=STEPS,
    seed=0,
    workdir=folder / "training",
    name="two denoisers",
    members=train.Members(2, data_axes=0),
    loop=train.Loop(steps_per_dispatch=100, progress=not QUICK),
)
for i, name in enumerate(("base", "expert")):
    params = jax.tree.map(lambda p, i=i: np.asarray(p[i]), state.ema_params)
    (folder / name).mkdir()
    save_unet1d(folder / name / "unet", network, params, DIM)
    save_scheduler(folder / name / "scheduler", schedule, "x_0")

# %% [markdown]
# ## 1. Read them
#
# No PyTorch is needed, and no code in a checkpoint is run. What a model predicts is
# usually written beside it; if it is not, data tell.

# %%
models = {name: load_model(folder / name) for name in ("base", "expert")}
base = models["base"]
process = discrete(base.schedule, integer=False)
found = detect_prediction(base.apply, process, data["base"][:256], jax.random.key(3))
print(f"the base predicts {found.prediction} (confidence {found.confidence:.2f})")

# %% [markdown]
# ## 2. One frame
#
# A pair is two functions `(x_t, t) -> eps` over the same levels and coordinates. Models
# with other schedules, flows or EDM denoisers are matched by their log-SNR.

# %%
pair = make_pair(
    *(
        DiffusionModel(m.apply, discrete(m.schedule, integer=False), m.prediction)
        for m in models.values()
    )
)

# %% [markdown]
# ## 3. Is there a reward at all?
#
# Only the part of the difference that is a gradient can be one.

# %%
report = conservativity(pair, jax.random.key(4), data["base"][:32])
print(f"antisymmetric share of the Jacobian: {np.nanmax(report.curl):.2f}")
print(f"no reward explains: {np.nanmax(report.unexplainable):.2f} or more")

# %% [markdown]
# ## 4. Extract
#
# Gradient alignment: a scalar network whose gradient is the difference of the scores.

# %%
held_out = {name: rows[-200:] for name, rows in data.items()}
reward = fit(
    "gradient_alignment",
    Source(pair=pair, base=data["base"][:-200], expert=data["expert"][:-200]),
    Training(steps=200 if QUICK else 2000, progress=not QUICK),
)

# %% [markdown]
# ## 5. Measure
#
# Does it rank the expert's trajectories above the base's, on samples nobody saw?

# %%
# The mean over noise levels ranks; the value itself is `as_="value"`, in nats.
ranks = lambda reward, rows: score_samples(reward, rows, as_="ranking")
values = {name: ranks(reward, rows) for name, rows in held_out.items()}
found = diffreward.measure(reward, pair, held_out["base"][:60], expert=held_out["expert"])
print("AUROC {:.2f} [{:.2f}, {:.2f}]".format(*found.measures["auroc"]))
print("It says of itself:", *found.limits, sep="\n- ")

# %% [markdown]
# ## 6. Use
#
# Scale 1 steers the base to the expert; the drift of the samples shows it.

# %%
steered = guide(pair.base, reward.reward_fn, pair.schedule, 1.0)
drawn = {}
for name, eps_fn in (("base", pair.base), ("steered", steered), ("expert", pair.expert)):
    draw = lambda key, f=eps_fn: sample(f, pair.schedule, key, (HORIZON, DIM))
    drawn[name] = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(5), 200))
    print(f"{name}: last step at {drawn[name][:, -1, 0].mean():.2f}")

# %% [markdown]
# Left: what the reward says of held-out trajectories. Right: the first number of every
# step, mean and middle half of the samples. Steering (red) takes the base to the expert.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
colours = {"base": "#9a9a9a", "steered": "#d1495b", "expert": "#00798c"}
for name, rewards in values.items():
    left.hist(rewards, 30, density=True, alpha=0.6, color=colours[name], label=name)
for name, rows in drawn.items():
    low, high = np.quantile(rows[..., 0], [0.25, 0.75], axis=0)
    right.plot(rows[..., 0].mean(0), color=colours[name], label=name)
    right.fill_between(range(HORIZON), low, high, color=colours[name], alpha=0.15)
left.set(xlabel="reward (ranking)", ylabel="density")
right.set(xlabel="step", ylabel="first number")
for ax in (left, right):
    ax.legend()
figure.savefig(folder / "tutorial.png")

# %% [markdown]
# ## 7. Keep
#
# A card holds the weights, what was measured, what it must not be used for, and a NumPy
# program. The same from a shell: `diffreward extract --base A --expert B --data D --out
# card`, `diffreward score card samples.npy`, `diffreward report card`.

# %%
limits = ["Trained on a toy system."]
diffreward.save(reward, folder / "card", findings=found, limits=limits)
again = diffreward.load(folder / "card")
np.testing.assert_allclose(ranks(again, held_out["base"]), values["base"])
print("card:", *sorted(path.name for path in (folder / "card").iterdir()))
