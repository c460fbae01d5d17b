"""What is measured of every goal's reward, on held-out data only."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.stats import pearsonr, spearmanr

from configs.common import ConfigDict
from diffreward import data as d
from diffreward import measures
from diffreward.learn import Denoiser, RewardModel
from diffreward.reward import Pair, noised_values
from diffreward.steer import follow_plans, guide, guide_by_difference, plan
from diffreward.text import say
from diffreward.types import Params
from experiments import measure
from experiments.build import build_reward


class TestSet(NamedTuple):
    """Held-out windows of one dataset, normalised, (count, horizon, dim)."""

    episodes: np.ndarray
    """One window per episode, from its first state."""
    windows: np.ndarray
    """Windows from anywhere."""


def evaluate(
    config: ConfigDict,
    folder: Path,
    prepared: Any,
    model: Denoiser,
    base: Params,
    experts: Params,
    rewards: dict[str, Params],
) -> dict[str, Any]:
    """Evaluates every goal; arrays for the figures go to ``folder/goal<n>.npz``."""
    base_set = test_set(config, prepared, prepared.base["test"])
    tools = Tools(config, prepared, model)
    goals = {}
    for i, goal in enumerate(config.goals):
        member = lambda tree, i=i: jax.tree.map(lambda x: x[i], tree)
        seeds = config.rewards.seeds
        per_seed = [
            tools.of_goal(
                goal,
                base_set,
                test_set(config, prepared, prepared.experts[i]["test"]),
                prepared.experts[i]["test"],
                base,
                member(experts),
                jax.tree.map(lambda x, m=i * seeds + s: x[m], rewards["rewards"]),
                jax.tree.map(
                    lambda x, m=i * config.window_rewards.seeds: x[m],
                    rewards["window_rewards"],
                ),
            )
            for s in range(seeds)
        ]
        record, arrays = per_seed[0]
        for name in ("auroc", "correlation", "fvu"):
            record[f"{name}_by_seed"] = [r[name] for r, _ in per_seed]
        goals[str(goal)] = record
        save_arrays(folder / f"goal{goal}.npz", arrays)
        say(
            f"goal {goal}: peak {record['peak_distance']:.2f} m from the goal, AUROC "
            f"{record['auroc'][0]:.3f}, correlation {record['correlation']:.3f}, "
            f"map {record['map_spearman']:.2f}, reached {record['reached']}"
        )
    return {"maze": config.maze, "goals": goals, "summary": summarise(goals, config)}


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes an archive whole or not at all."""
    d.write_arrays(path, arrays)


def summarise(goals: dict[str, Any], config: ConfigDict) -> dict[str, Any]:
    """Means over goals, as quoted in tables."""
    mean = lambda f: float(np.mean([f(g) for g in goals.values()]))
    steered = f"steered {max(config.evaluation.scales, key=_near_one):g}"
    names = {"unsteered", "expert", "difference", steered}
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
        "reached": {n: mean(lambda g, n=n: g["reached"][n]) for n in sorted(names)},
        "executed": {n: mean(lambda g, n=n: g["executed"][n]) for n in sorted(names)},
    }


def _near_one(scale: float) -> float:
    return -abs(scale - 1.0)


def test_set(config: ConfigDict, prepared: Any, episodes: d.Episodes) -> TestSet:
    """Seeded choice of held-out windows."""
    e, horizon = config.evaluation, config.model.horizon
    w = d.make_windows(
        episodes, prepared.normaliser, horizon=horizon, pad=False, balance="episode"
    )
    cut = jax.jit(jax.vmap(lambda i: d.gather(w, i, horizon)[0]))
    # A window is a trajectory if it starts where its episode does.
    firsts = np.unique(w.start, return_index=True)[1]
    firsts = firsts[np.isin(w.start[firsts], episodes.starts)][: e.episodes]
    anywhere = d.draw(w, jax.random.key(config.seed), e.windows, horizon)["x_0"]
    return TestSet(np.asarray(cut(firsts)), np.asarray(anywhere))


def make_window_values(
    model: Denoiser, reward: RewardModel
) -> Callable[[Params, Array], Array]:
    """Compiled reward of a batch of clean windows, at the lowest noise level."""

    @jax.jit
    def window_values(params: Params, x: Array) -> Array:
        noise = jax.random.normal(jax.random.key(5), x.shape)
        rho, least = reward.window_fn(params), jnp.zeros(1, jnp.int32)
        value = lambda x, e: noised_values(rho, model.schedule, x, least, e[None, None])
        return jax.vmap(value)(x, noise)[:, 0, 0]

    return window_values


def reward_map(
    config: ConfigDict,
    prepared: Any,
    values: Callable[[Array], Array],
    episodes: d.Episodes,
) -> tuple[measures.Grid, np.ndarray]:
    """Reward of every bin of the maze, from the windows through it, smoothed.

    Every point of a window gets the window's value (winsorised as in the paper). A bin
    gets ``map_quantile`` of its points' values, what the best moves there are worth: a
    mean over all moves of the base also counts those that only pass through. Bins with
    too few points are NaN.
    """
    e = config.evaluation
    size = config.window_rewards.window or config.model.horizon
    w = d.make_windows(
        episodes, prepared.normaliser, horizon=size, pad=False, balance="window"
    )
    x = jax.vmap(lambda i: d.gather(w, i, size)[0])(jnp.arange(len(w.start)))
    value = np.asarray(values(x))
    value = np.clip(value, *np.percentile(value, [0.5, 99.5])).repeat(size)
    points = d.unnormalise(prepared.normaliser, np.asarray(x))[:, :, 2:4]
    rows, columns = prepared.maze.walls.shape
    corner = np.array([columns, rows]) / 2
    grid = measures.make_grid(-corner, corner, e.map_bin)
    raw = measures.value_map(
        grid,
        points.reshape(-1, 2),
        value,
        min_count=e.map_min_count,
        quantile=e.map_quantile or None,
    )
    return grid, measures.smooth_map(raw, e.map_smoothing)


test_set.__test__ = False  # type: ignore[attr-defined]


class Tools:
    """The compiled measurements, shared by all goals so that each compiles once."""

    def __init__(self, config: ConfigDict, prepared: Any, model: Denoiser):
        self.config, self.prepared, self.model = config, prepared, model
        self.reward = build_reward(config.rewards, model)
        self.window_reward = build_reward(config.window_rewards, model)
        pinned = model.pinned

        def pair_of(base: Params, expert: Params) -> Pair:
            return model.pair(base, expert)

        @jax.jit
        def plans(
            base: Params, expert: Params, params: Params, known: Array, mix: Array
        ) -> Array:
            """Plans of the base with (reward scale, difference scale) = mix."""
            pair = pair_of(base, expert)
            steered = guide(
                pair.base,
                self.reward.reward_fn(params),
                model.schedule,
                mix[0],
                space=config.evaluation.space,
                scale_by_variance=not self.reward.objective.absorbs_variance,
                pinned=pinned,
            )
            direct = guide_by_difference(pair.base, pair.expert, mix[1], pinned=pinned)
            eps = lambda x, t: steered(x, t) + direct(x, t) - pair.base(x, t)
            return plan(eps, model.schedule, jax.random.key(6), known, pinned)

        self.plans = plans
        self.window_values = make_window_values(model, self.window_reward)
        self.values = measure.make_values(model, self.reward, config.evaluation.noises)
        self.fvu = measure.make_fvu(model, self.reward)
        self.window_fvu = measure.make_fvu(model, self.window_reward)
        self.expert_plans = jax.jit(
            lambda expert, known: plan(
                model.eps_fn(expert), model.schedule, jax.random.key(6), known, pinned
            )
        )

    def of_goal(
        self,
        goal: int,
        base_set: TestSet,
        expert_set: TestSet,
        expert_episodes: d.Episodes,
        base: Params,
        expert: Params,
        reward: Params,
        window_reward: Params,
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Record and figure arrays of one goal."""
        e = self.config.evaluation
        target = self.prepared.maze.goals[goal - 1]
        values = lambda x: tuple(map(np.asarray, self.values(base, expert, reward, x)))
        (r_base, gap_base), (r_expert, gap_expert) = (
            values(s.episodes) for s in (base_set, expert_set)
        )
        windows = np.concatenate([base_set.windows, expert_set.windows])
        r_windows, gap_windows = values(windows)
        residual, signal = map(np.asarray, self.fvu(base, expert, reward, windows))
        w_residual, w_signal = self.window_fvu(base, expert, window_reward, windows)

        reached, executed, tracks = self._steering(
            base, expert, reward, base_set.episodes[: e.plans], target
        )
        map_record, map_arrays = self._map(window_reward, expert_episodes, target)
        record = {
            "goal": target,
            "auroc": list(measures.auroc(r_expert, r_base)),
            "gap_auroc": measures.mann_whitney(gap_expert, gap_base),
            "correlation": float(pearsonr(r_windows, gap_windows).statistic),
            "rank_correlation": float(spearmanr(r_windows, gap_windows).statistic),
            "fvu": float(residual.sum() / signal.sum()),
            "fvu_by_level": residual / signal,
            "window_fvu": float(w_residual.sum() / w_signal.sum()),
            "reached": reached,
            "executed": executed,
            **map_record,
        }
        arrays = {
            **map_arrays,
            "reward": r_windows,
            "log_ratio": gap_windows,
            "is_expert": np.arange(len(windows)) >= len(base_set.windows),
            **{f"plans {name}": x for name, x in tracks.items()},
        }
        return record, arrays

    def _steering(
        self,
        base: Params,
        expert: Params,
        reward: Params,
        known: np.ndarray,
        target: np.ndarray,
    ) -> tuple[dict[str, float], dict[str, float], dict[str, np.ndarray]]:
        """Share of plans, and of their executions, that end at the goal."""
        config, prepared = self.config, self.prepared
        ways = {
            "unsteered": (0.0, 0.0),
            "difference": (0.0, 1.0),
            **{f"steered {s:g}": (float(s), 0.0) for s in config.evaluation.scales},
        }
        plans = {
            name: self.plans(base, expert, reward, known, jnp.array(mix))
            for name, mix in ways.items()
        }
        plans["expert"] = self.expert_plans(expert, known)
        reached, executed, tracks = {}, {}, {}
        for name, x in plans.items():
            x = d.unnormalise(prepared.normaliser, np.asarray(x))
            positions, start = x[:, :, 2:4], x[:, 0, 2:6]
            driven = follow_plans(prepared.maze, positions, start, config.data.frame_skip)
            near = lambda end: np.linalg.norm(end - target, axis=-1)
            reach = config.evaluation.reach
            reached[name] = float((near(positions[:, -1]) <= reach).mean())
            executed[name] = float((near(driven[:, -1, :2]) <= reach).mean())
            tracks[name] = positions.astype(np.float32)
        return reached, executed, tracks

    def _map(
        self, window_reward: Params, expert_episodes: d.Episodes, target: np.ndarray
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The reward map over base windows, and how it compares with visits."""
        e, prepared = self.config.evaluation, self.prepared
        first = lambda x: d.select(x, np.arange(min(e.map_episodes, len(x.starts))))
        base_episodes = first(prepared.base["test"])
        grid, shown = reward_map(
            self.config,
            prepared,
            lambda x: self.window_values(window_reward, x),
            base_episodes,
        )
        visits = [
            measures.visits(grid, x.observations[:, :2])
            for x in (first(expert_episodes), base_episodes)
        ]
        ratio = measures.log_visit_ratio(
            *visits, min_count=e.map_min_count, sigma=e.map_smoothing
        )
        both = np.isfinite(shown) & np.isfinite(ratio)
        peak = measures.find_peak(grid, shown, target, cell=1.0)
        distance = d.make_geodesic(prepared.maze, target)(grid.centres[both])
        record = {
            "peak_distance": peak.distance,
            "recovered": peak.distance <= 0.5,
            "top_cells_hit": peak.top_cells_hit,
            "map_spearman": float(spearmanr(shown[both], ratio[both]).statistic),
            "geodesic_spearman": float(spearmanr(shown[both], -distance).statistic),
            "data_geodesic_spearman": float(spearmanr(ratio[both], -distance).statistic),
        }
        arrays = {
            "map": shown,
            "visit_ratio": ratio,
            "x_edges": grid.x_edges,
            "y_edges": grid.y_edges,
        }
        return record, arrays
