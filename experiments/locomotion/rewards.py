"""What the rewards of a run are worth on held-out windows."""

from typing import Any

import jax
import numpy as np

from diffreward import data as d
from diffreward import measures
from experiments import measure
from experiments.locomotion.data import Prepared, both_windows
from experiments.locomotion.record import Run, Trained
from experiments.samples import crossed_samples


def measure_rewards(run: Run, prepared: Prepared, trained: Trained) -> dict[str, Any]:
    """Held-out fraction of variance unexplained per level, and AUROC, of each reward.

    ``fvu`` is on the data of both, ``steered_fvu`` where a perfectly steered base goes:
    on what the expert makes of the base's states.
    """
    model, seed = run.denoiser, run.config.seed
    count, horizon = run.config.evaluation.windows, model.shape[0]
    sets = both_windows(run, prepared, "test")
    take = lambda w, i: np.asarray(d.draw(w, jax.random.key(i), count, horizon)["x_0"])
    cut = {name: take(w, i) for i, (name, w) in enumerate(sets.items())}
    both = np.concatenate([cut["base"], cut["expert"]])
    stacked = {**sets, "expert": d.stack_windows([sets["expert"]])}
    experts = jax.tree.map(lambda x: np.asarray(x)[None], trained.expert)
    crossed = crossed_samples(model, trained.base, experts, stacked, count, seed)
    steered = np.asarray(crossed["expert_at_base"].rows).reshape(-1, *model.shape)
    pair, half, found = (trained.base, trained.expert), len(cut["base"]), {}
    for name, reward in run.rewards.items():
        params = jax.tree.map(lambda x: x[0], trained.rewards[name])
        variances = measure.make_fvu(model, reward)
        residual, signal = map(np.asarray, variances(*pair, params, both))
        there, signal_there = map(np.asarray, variances(*pair, params, steered))
        measured = measure.make_values(model, reward, 1)(*pair, params, both)
        values, _, gap = map(np.asarray, measured)
        found[name] = {
            "fvu": float(residual.sum() / signal.sum()),
            "fvu_by_level": residual / signal,
            "steered_fvu": float(there.sum() / signal_there.sum()),
            "steered_fvu_by_level": there / signal_there,
            "auroc": list(measures.auroc(values[half:], values[:half])),
            "gap_auroc": measures.mann_whitney(gap[half:], gap[:half]),
            "correlation": float(np.corrcoef(values, gap)[0, 1]),
        }
    return found
