"""What the rewards of a run are worth on held-out windows."""

from typing import Any

import jax
import numpy as np

from diffreward import data as d
from diffreward import measures
from experiments import measure
from experiments.locomotion.data import Prepared, both_windows
from experiments.locomotion.record import Run, Trained
from experiments.locomotion.visited import steered_plans
from experiments.samples import crossed_samples


def measure_rewards(
    run: Run, prepared: Prepared, trained: Trained, visited: np.ndarray | None
) -> dict[str, Any]:
    """Held-out fraction of variance unexplained per level, and AUROC, of each reward.

    ``fvu`` is on the data of both, ``steered_fvu`` where a perfectly steered base goes:
    on what the expert makes of the base's states. ``visited_fvu`` is of the learned reward
    where its own base went: on what it plans from the states it was in. The same of
    ``pull``, towards the base.

    Args:
        run: of the rewards.
        prepared: its data.
        trained: its models.
        visited: observations of episodes steered by the first seed's reward, if kept.
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
    pair, half = (trained.base, trained.expert), len(cut["base"])
    found: dict[str, Any] = {}
    for name, reward in run.rewards.items():
        params = jax.tree.map(lambda x: x[0], trained.rewards[name])
        fit = measure.make_gradient_fit(model, reward)
        here, there = (fit(*pair, params, x) for x in (both, steered))
        measured = measure.make_values(model, reward, 1)(*pair, params, both)
        values, _, gap = map(np.asarray, measured)
        found[name] = {
            "fvu": here.unexplained,
            "fvu_by_level": here.residual / here.signal,
            "pull": here.pull,
            "steered_fvu": there.unexplained,
            "steered_fvu_by_level": there.residual / there.signal,
            "steered_pull": there.pull,
            "auroc": list(measures.auroc(values[half:], values[:half])),
            "gap_auroc": measures.mann_whitney(gap[half:], gap[:half]),
            "correlation": float(np.corrcoef(values, gap)[0, 1]),
        }
        if name == "rewards" and visited is not None:
            asked = (run, prepared.normaliser, trained.base, params, visited, seed)
            met = fit(*pair, params, steered_plans(*asked))
            found[name] |= {"visited_fvu": met.unexplained, "visited_pull": met.pull}
    return found
