"""What is measured of every goal's reward, on held-out data only."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.stats import pearsonr, spearmanr

from configs.common import ConfigDict
from diffreward import data as d
from diffreward import measures
from diffreward.reward import metrics
from diffreward.steer import follow_plans, guide, guide_by_difference, plan
from diffreward.text import say
from diffreward.types import Params
from experiments import measure
from experiments.maze2d import data, maps
from experiments.maze2d.build import ACT, OBS, Models, Prepared, Run, Trained
from experiments.maze2d.windows import by_window

PLAN_SEED = 6
"""Of the noise that all plans start from, whoever makes them."""

Found = tuple[dict[str, Any], dict[str, np.ndarray]]
"""Numbers for the record, arrays for the figures."""


class HeldOut(NamedTuple):
    """Held-out windows of one dataset, normalised, (count, horizon, dim)."""

    episodes: np.ndarray
    """One window per episode, from its first state."""
    windows: np.ndarray
    """Windows from anywhere."""


class Compiled(NamedTuple):
    """The measurements, each compiled once for all goals."""

    values: measure.Measure
    fit: Callable[..., metrics.GradientFit]
    window_fit: Callable[..., metrics.GradientFit]
    window_values: maps.WindowValues
    steered_plans: Callable[[Models, tuple[float, float], np.ndarray, int], Array]
    """Of (models, scales of reward and difference, known entries, turn of replanning)."""
    expert_plans: Callable[[Params, np.ndarray, int], Array]


def evaluate(run: Run, prepared: Prepared, trained: Trained) -> dict[str, Any]:
    """Evaluates every goal; arrays for the figures go to ``evaluation/goal<n>.npz``."""
    config, compiled = run.config, compile_measurements(run)
    splits = ("test", "val")
    base, tuning = (held_out(run, prepared, prepared.base[s]) for s in splits)
    goals = {}
    for i, goal in enumerate(config.goals):
        if config.conditioned:
            prepared = data.with_base_told(run, prepared, i)
            base, tuning = (held_out(run, prepared, prepared.base[s]) for s in splits)
        episodes = prepared.experts[i]["test"]
        sets = (base, held_out(run, prepared, episodes))
        fit = (tuning, held_out(run, prepared, prepared.experts[i]["val"]))
        target = run.maze.goals[goal - 1]
        # Arrays of the first seed are drawn; of the others, three numbers are kept.
        seeds = [trained.of_goal(config, i, s) for s in range(config.rewards.seeds)]
        agreements = [compare_windows(compiled, models, sets, fit) for models in seeds]
        record, arrays = agreements[0]
        models = seeds[0]
        steered, tracks = compare_plans(run, prepared, compiled, models, base, target)
        values = partial(compiled.window_values, models.window_reward)
        mapped, drawn = maps.compare(run, prepared, values, episodes, target)
        progress, tracked = by_window(run, prepared, values, target)
        record = {"goal": target, **record, **steered, **mapped, **progress}
        for name in ("auroc", "correlation", "fvu"):
            record[f"{name}_by_seed"] = [r[name] for r, _ in agreements]
        goals[str(goal)] = record
        path = run.workdir / "evaluation" / f"goal{goal}.npz"
        d.write_arrays(path, {**drawn, **arrays, **tracks, **tracked})
        say(
            f"goal {goal}: peak {record['peak_distance']:.2f} m from the goal, AUROC "
            f"{record['auroc'][0]:.3f}, correlation {record['correlation']:.3f}, "
            f"map {record['map_spearman']:.2f}, reached {record['reached']}"
        )
    return {"maze": config.maze, "goals": goals, "summary": summarise(goals, config)}


def summarise(goals: dict[str, Any], config: ConfigDict) -> dict[str, Any]:
    """Means over goals, as quoted in tables."""
    mean = lambda f: float(np.mean([f(g) for g in goals.values()]))
    steered = nearest_to_one(config.evaluation.scales)
    names = sorted({"unsteered", "expert", "difference", steered})
    return {
        "goals_recovered": sum(g["recovered"] for g in goals.values()),
        "goals_counted": sum(g["counted"] for g in goals.values()),
        "peak_distance": max(g["peak_distance"] for g in goals.values()),
        "counted_peak_distance": max(g["counted_peak_distance"] for g in goals.values()),
        "goals_in_top_cells": sum(g["top_cells_hit"] for g in goals.values()),
        "goals": len(goals),
        "auroc": mean(lambda g: g["auroc"][0]),
        "gap_auroc": mean(lambda g: g["gap_auroc"]),
        "accuracy": mean(lambda g: g["accuracy"][0]),
        "gap_accuracy": mean(lambda g: g["gap_accuracy"][0]),
        "correlation": mean(lambda g: g["correlation"]),
        "correlation_in_base": mean(lambda g: g["correlation_in_base"]),
        "correlation_in_expert": mean(lambda g: g["correlation_in_expert"]),
        "slope": mean(lambda g: g["slope"]),
        "progress_spearman": mean(lambda g: g["progress_spearman"]),
        "map_spearman": mean(lambda g: g["map_spearman"]),
        "geodesic_spearman": mean(lambda g: g["geodesic_spearman"]),
        "data_geodesic_spearman": mean(lambda g: g["data_geodesic_spearman"]),
        "fvu": mean(lambda g: g["fvu"]),
        "window_fvu": mean(lambda g: g["window_fvu"]),
        "steered_name": steered,
        "reached": {n: mean(lambda g, n=n: g["reached"][n]) for n in names},
        "executed": {n: mean(lambda g, n=n: g["executed"][n]) for n in names},
        "replanned": {
            n: mean(lambda g, n=n: g["replanned"][n])
            for n in names
            if config.evaluation.replan
        },
    }


def held_out(run: Run, prepared: Prepared, episodes: d.Episodes) -> HeldOut:
    """Seeded choice of held-out windows."""
    e, horizon = run.config.evaluation, run.config.model.horizon
    w = d.make_windows(
        episodes, prepared.normaliser, horizon=horizon, pad=False, balance="episode"
    )
    cut = jax.jit(jax.vmap(lambda i: d.gather(w, i, horizon)[0]))
    # A window is a trajectory if it starts where its episode does.
    firsts = np.unique(w.start, return_index=True)[1]
    firsts = firsts[np.isin(w.start[firsts], episodes.starts)][: e.episodes]
    anywhere = d.draw(w, jax.random.key(run.config.seed), e.windows, horizon)["x_0"]
    return HeldOut(np.asarray(cut(firsts)), np.asarray(anywhere))


def compile_measurements(run: Run) -> Compiled:
    """Compiled when first used."""
    model = run.model
    key = lambda turn: jax.random.key(PLAN_SEED + turn)

    @jax.jit
    def steered_plans(
        base: Params, expert: Params, params: Params, known: Array, mix: Array, turn: Array
    ) -> Array:
        """Plans of the base with (reward scale, difference scale) = mix."""
        pair = model.pair(base, expert)
        steered = guide(
            pair.base,
            run.reward.reward_fn(params),
            model.schedule,
            mix[0],
            space=run.config.evaluation.space,
            scale_by_variance=not run.reward.objective.absorbs_variance,
            pinned=model.pinned,
        )
        direct = guide_by_difference(pair.base, pair.expert, mix[1], pinned=model.pinned)
        eps = lambda x, t: steered(x, t) + direct(x, t) - pair.base(x, t)
        return plan(eps, model.schedule, key(turn), known, model.pinned)

    @jax.jit
    def expert_plans(expert: Params, known: Array, turn: Array) -> Array:
        return plan(model.eps_fn(expert), model.schedule, key(turn), known, model.pinned)

    return Compiled(
        values=measure.make_values(model, run.reward, run.config.evaluation.noises),
        fit=measure.make_gradient_fit(model, run.reward),
        window_fit=measure.make_gradient_fit(model, run.window_reward),
        window_values=maps.make_window_values(run),
        steered_plans=lambda models, mix, known, turn: steered_plans(
            models.base,
            models.expert,
            models.reward,
            known,
            jnp.array(mix),
            jnp.array(turn),
        ),
        expert_plans=lambda expert, known, turn: expert_plans(
            expert, known, jnp.array(turn)
        ),
    )


def compare_windows(
    compiled: Compiled,
    models: Models,
    sets: tuple[HeldOut, HeldOut],
    fit: tuple[HeldOut, HeldOut],
) -> Found:
    """The reward against the two models' log ratio, and how both rank experts.

    ``sets`` are of the base and of the expert, ``fit`` others of both that a threshold
    is fitted on.
    """
    base, expert, reward, window_reward = models
    values = lambda x: tuple(map(np.asarray, compiled.values(base, expert, reward, x)))
    (r_base, _, gap_base), (r_expert, _, gap_expert) = (values(s.episodes) for s in sets)
    windows = np.concatenate([s.windows for s in sets])
    r_windows, nats, gap_windows = values(windows)
    is_expert = np.arange(len(windows)) >= len(sets[0].windows)
    fitted = [values(s.windows) for s in fit]

    def accuracy(which: int, found: np.ndarray) -> list[float]:
        base, expert = (x[which] for x in fitted)
        threshold = measures.best_threshold(expert, base)
        groups = found[is_expert], found[~is_expert]
        return list(measures.balanced_accuracy(*groups, threshold=threshold))

    whole = compiled.fit(base, expert, reward, windows)
    of_windows = compiled.window_fit(base, expert, window_reward, windows)
    record = {
        "auroc": list(measures.auroc(r_expert, r_base)),
        "gap_auroc": measures.mann_whitney(gap_expert, gap_base),
        "accuracy": accuracy(1, nats),
        "gap_accuracy": accuracy(2, gap_windows),
        "correlation": float(pearsonr(r_windows, gap_windows).statistic),
        "correlation_in_base": correlation(r_windows, gap_windows, ~is_expert),
        "correlation_in_expert": correlation(r_windows, gap_windows, is_expert),
        "slope": float(np.polyfit(gap_windows, nats, 1)[0]),
        "rank_correlation": float(spearmanr(r_windows, gap_windows).statistic),
        "fvu": whole.unexplained,
        "fvu_by_level": whole.residual / whole.signal,
        "window_fvu": of_windows.unexplained,
    }
    arrays = {
        "reward": r_windows,
        "log_ratio": gap_windows,
        "is_expert": is_expert,
    }
    return record, arrays


def correlation(x: np.ndarray, y: np.ndarray, which: np.ndarray) -> float:
    """Of those chosen alone: two classes far apart correlate whatever is in them."""
    return float(pearsonr(x[which], y[which]).statistic)


def compare_plans(
    run: Run,
    prepared: Prepared,
    compiled: Compiled,
    models: Models,
    base: HeldOut,
    goal: np.ndarray,
) -> Found:
    """Share of plans, and of their executions, that end at the goal (in metres).

    Plans are executed as they are, and (``replanned``) only for a few steps each, after
    which the next one begins where the mass has got to.
    """
    e = run.config.evaluation
    known = base.episodes[: e.plans]
    ways = {
        "unsteered": (0.0, 0.0),
        "difference": (0.0, 1.0),
        **{f"steered {s:g}": (float(s), 0.0) for s in e.scales},
    }
    make: dict[str, Callable[[np.ndarray, int], Array]] = {
        "expert": partial(compiled.expert_plans, models.expert)
    }
    for name, mix in ways.items():
        make[name] = partial(compiled.steered_plans, models, mix)
    plans = {name: plans_of(known, 0) for name, plans_of in make.items()}
    reached, executed, replanned, tracks = {}, {}, {}, {}
    compared = {"unsteered", "difference", "expert", nearest_to_one(e.scales)}
    at_goal = lambda x: float((np.linalg.norm(x - goal, axis=-1) <= e.reach).mean())
    for name, x in plans.items():
        states = d.unnormalise(prepared.normaliser, np.asarray(x))[:, :, ACT : ACT + OBS]
        positions = states[:, :, :2]
        skip = run.config.data.frame_skip
        driven = follow_plans(run.maze, positions, states[:, 0], skip)
        reached[name] = at_goal(positions[:, -1])
        executed[name] = at_goal(driven[:, -1, :2])
        if e.replan and name in compared:
            last = replan(run, prepared.normaliser, make[name], known)
            replanned[name] = at_goal(last[:, :2])
        tracks[f"plans {name}"] = positions.astype(np.float32)
    record = {"reached": reached, "executed": executed, "replanned": replanned}
    return record, tracks


def replan(
    run: Run,
    normaliser: d.Normaliser,
    plans_of: Callable[[np.ndarray, int], Array],
    known: np.ndarray,
) -> np.ndarray:
    """States (plans, 4) after as many steps as a plan has, with plans anew on the way.

    Args:
        run: of this maze.
        normaliser: of ``[action, observation]``.
        plans_of: plans from (known entries, turn).
        known: normalised trajectories, whose first states are started from.
    """
    every, horizon = run.config.evaluation.replan, run.config.model.horizon
    skip, known = run.config.data.frame_skip, known.copy()
    place = slice(ACT, ACT + OBS)
    shift, scale = (np.asarray(x)[place] for x in normaliser)
    state = known[:, 0, place] * scale + shift
    for turn, first in enumerate(range(0, horizon - 1, every)):
        known[:, 0, place] = (state - shift) / scale
        rows = d.unnormalise(normaliser, np.asarray(plans_of(known, turn)))
        count = min(every, horizon - 1 - first)
        places = rows[:, : count + 1, ACT : ACT + 2]
        state = follow_plans(run.maze, places, state, skip)[:, -1]
    return state


def nearest_to_one(scales: Sequence[float]) -> str:
    """The steered way that tables show."""
    return f"steered {max(scales, key=lambda scale: -abs(scale - 1.0)):g}"
