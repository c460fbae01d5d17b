"""What is measured of every goal's reward, on held-out data only."""

from collections.abc import Callable
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
from diffreward.steer import follow_plans, guide, guide_by_difference, plan
from diffreward.text import say
from diffreward.types import Params
from experiments import measure
from experiments.maze2d import maps
from experiments.maze2d.build import ACT, OBS, Models, Prepared, Run, Trained

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
    fvu: measure.Measure
    window_fvu: measure.Measure
    window_values: maps.WindowValues
    steered_plans: Callable[[Models, np.ndarray, tuple[float, float]], Array]
    expert_plans: Callable[[Params, np.ndarray], Array]


def evaluate(run: Run, prepared: Prepared, trained: Trained) -> dict[str, Any]:
    """Evaluates every goal; arrays for the figures go to ``evaluation/goal<n>.npz``."""
    config, compiled = run.config, compile_measurements(run)
    base = held_out(run, prepared, prepared.base["test"])
    goals = {}
    for i, goal in enumerate(config.goals):
        episodes = prepared.experts[i]["test"]
        sets = (base, held_out(run, prepared, episodes))
        target = run.maze.goals[goal - 1]
        # Arrays of the first seed are drawn; of the others, three numbers are kept.
        seeds = [trained.of_goal(config, i, s) for s in range(config.rewards.seeds)]
        agreements = [compare_windows(compiled, models, sets) for models in seeds]
        record, arrays = agreements[0]
        models = seeds[0]
        steered, tracks = compare_plans(run, prepared, compiled, models, base, target)
        values = partial(compiled.window_values, models.window_reward)
        mapped, drawn = maps.compare(run, prepared, values, episodes, target)
        record = {"goal": target, **record, **steered, **mapped}
        for name in ("auroc", "correlation", "fvu"):
            record[f"{name}_by_seed"] = [r[name] for r, _ in agreements]
        goals[str(goal)] = record
        path = run.workdir / "evaluation" / f"goal{goal}.npz"
        d.write_arrays(path, {**drawn, **arrays, **tracks})
        say(
            f"goal {goal}: peak {record['peak_distance']:.2f} m from the goal, AUROC "
            f"{record['auroc'][0]:.3f}, correlation {record['correlation']:.3f}, "
            f"map {record['map_spearman']:.2f}, reached {record['reached']}"
        )
    return {"maze": config.maze, "goals": goals, "summary": summarise(goals, config)}


def summarise(goals: dict[str, Any], config: ConfigDict) -> dict[str, Any]:
    """Means over goals, as quoted in tables."""
    mean = lambda f: float(np.mean([f(g) for g in goals.values()]))
    nearest_one = max(config.evaluation.scales, key=lambda scale: -abs(scale - 1.0))
    steered = f"steered {nearest_one:g}"
    names = sorted({"unsteered", "expert", "difference", steered})
    return {
        "goals_recovered": sum(g["recovered"] for g in goals.values()),
        "goals_in_top_cells": sum(g["top_cells_hit"] for g in goals.values()),
        "goals": len(goals),
        "auroc": mean(lambda g: g["auroc"][0]),
        "gap_auroc": mean(lambda g: g["gap_auroc"]),
        "correlation": mean(lambda g: g["correlation"]),
        "map_spearman": mean(lambda g: g["map_spearman"]),
        "geodesic_spearman": mean(lambda g: g["geodesic_spearman"]),
        "fvu": mean(lambda g: g["fvu"]),
        "window_fvu": mean(lambda g: g["window_fvu"]),
        "steered_name": steered,
        "reached": {n: mean(lambda g, n=n: g["reached"][n]) for n in names},
        "executed": {n: mean(lambda g, n=n: g["executed"][n]) for n in names},
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
    key = lambda: jax.random.key(PLAN_SEED)

    @jax.jit
    def steered_plans(
        base: Params, expert: Params, params: Params, known: Array, mix: Array
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
        return plan(eps, model.schedule, key(), known, model.pinned)

    @jax.jit
    def expert_plans(expert: Params, known: Array) -> Array:
        return plan(model.eps_fn(expert), model.schedule, key(), known, model.pinned)

    return Compiled(
        values=measure.make_values(model, run.reward, run.config.evaluation.noises),
        fvu=measure.make_fvu(model, run.reward),
        window_fvu=measure.make_fvu(model, run.window_reward),
        window_values=maps.make_window_values(run),
        steered_plans=lambda models, known, mix: steered_plans(
            models.base, models.expert, models.reward, known, jnp.array(mix)
        ),
        expert_plans=expert_plans,
    )


def compare_windows(
    compiled: Compiled, models: Models, sets: tuple[HeldOut, HeldOut]
) -> Found:
    """The reward against the two models' log ratio, and how both rank experts.

    ``sets`` are of the base and of the expert.
    """
    base, expert, reward, window_reward = models
    values = lambda x: tuple(map(np.asarray, compiled.values(base, expert, reward, x)))
    (r_base, gap_base), (r_expert, gap_expert) = (values(s.episodes) for s in sets)
    windows = np.concatenate([s.windows for s in sets])
    r_windows, gap_windows = values(windows)
    residual, signal = map(np.asarray, compiled.fvu(base, expert, reward, windows))
    w_residual, w_signal = compiled.window_fvu(base, expert, window_reward, windows)
    record = {
        "auroc": list(measures.auroc(r_expert, r_base)),
        "gap_auroc": measures.mann_whitney(gap_expert, gap_base),
        "correlation": float(pearsonr(r_windows, gap_windows).statistic),
        "rank_correlation": float(spearmanr(r_windows, gap_windows).statistic),
        "fvu": float(residual.sum() / signal.sum()),
        "fvu_by_level": residual / signal,
        "window_fvu": float(w_residual.sum() / w_signal.sum()),
    }
    arrays = {
        "reward": r_windows,
        "log_ratio": gap_windows,
        "is_expert": np.arange(len(windows)) >= len(sets[0].windows),
    }
    return record, arrays


def compare_plans(
    run: Run,
    prepared: Prepared,
    compiled: Compiled,
    models: Models,
    base: HeldOut,
    goal: np.ndarray,
) -> Found:
    """Share of plans, and of their executions, that end at the goal (in metres)."""
    e = run.config.evaluation
    known = base.episodes[: e.plans]
    ways = {
        "unsteered": (0.0, 0.0),
        "difference": (0.0, 1.0),
        **{f"steered {s:g}": (float(s), 0.0) for s in e.scales},
    }
    plans = {name: compiled.steered_plans(models, known, mix) for name, mix in ways.items()}
    plans["expert"] = compiled.expert_plans(models.expert, known)
    reached, executed, tracks = {}, {}, {}
    at_goal = lambda x: float((np.linalg.norm(x - goal, axis=-1) <= e.reach).mean())
    for name, x in plans.items():
        states = d.unnormalise(prepared.normaliser, np.asarray(x))[:, :, ACT : ACT + OBS]
        positions = states[:, :, :2]
        skip = run.config.data.frame_skip
        driven = follow_plans(run.maze, positions, states[:, 0], skip)
        reached[name] = at_goal(positions[:, -1])
        executed[name] = at_goal(driven[:, -1, :2])
        tracks[f"plans {name}"] = positions.astype(np.float32)
    return {"reached": reached, "executed": executed}, tracks
