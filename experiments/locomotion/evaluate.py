"""Rollouts of every method on the same episodes, and the numbers of the table."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from tqdm import tqdm

from configs.common import ConfigDict
from diffreward import data as d
from diffreward import measures
from diffreward.learn import Denoiser, energy_reward
from diffreward.measures import bootstrap, interquartile_mean
from diffreward.steer import guide, guide_by_difference, make_controller, roll_out
from diffreward.text import say
from diffreward.types import EpsFn, Params, RewardFn
from experiments import baselines, measure
from experiments.build import build_reward, build_scalar
from experiments.samples import crossed_samples

VALIDATION, TEST = 10_000, 20_000
"""First seeds of the episodes that choose a scale, and of those that are reported."""


KEYS = {"returns", "lengths", "scale", "tried", "planner_seconds", "physics_seconds"}
"""What an archive holds for certain; films are more."""
NEEDED = ("unsteered", "score", "expert")
"""Rows of every table: without them there is nothing to compare."""
Act = Callable[[Any, Any, Array, Array, Any], Array]
"""Actions from (parameters, scale, keys, step, observations)."""


class Method(NamedTuple):
    """One way to act: its models, and how its guidance scale is set."""

    eps_fn: Callable[[Any, float], EpsFn]
    """Of (parameters, scale)."""
    params: list[Any]
    """One per seed."""
    scale: float | None
    """Fixed scale; None: chosen on validation episodes."""
    rank_by: Callable[[Any], RewardFn] | None = None
    """Of parameters: what picks the best of ``evaluation.candidates`` plans."""


def evaluate(
    config: ConfigDict,
    folder: Path,
    prepared: Any,
    model: Denoiser,
    trained: dict[str, Params],
) -> dict[str, Any]:
    """Runs all methods; episodes of each go to ``folder/<method>.npz``.

    A method whose file is there is not run again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    # Methods that differ in parameters or scale alone share one compiled program.
    acts: dict[Any, Act] = {}
    for name, method in methods(config, model, trained).items():
        path = folder / f"{name}.npz"
        if not path.exists():
            key = (method.eps_fn, method.rank_by)
            act = acts.setdefault(key, make_act(config, prepared, model, method))
            save(path, run(config, act, name, method))
        results[name] = summarise(config, read(path))
        say(f"{name}: score {results[name]['score'][0]:.1f}")
    close_gaps(config, folder, results)
    return {
        "task": config.task,
        "methods": results,
        "rewards": measure_rewards(config, prepared, model, trained),
    }


def methods(
    config: ConfigDict, model: Denoiser, trained: dict[str, Params]
) -> dict[str, Method]:
    """The rows of the table, all unless ``evaluation.rows`` names some."""
    e, pinned, schedule = config.evaluation, model.pinned, model.schedule
    base, expert = trained["base"], trained["expert"]

    def seeds(name: str) -> list[Any]:
        count = jax.tree.leaves(trained[name])[0].shape[0]
        return [
            (base, jax.tree.map(lambda x, i=i: x[i], trained[name])) for i in range(count)
        ]

    def steered(reward_fn: Callable[[Any], RewardFn], **options: Any) -> Callable:
        def eps_fn(params: Any, scale: float) -> EpsFn:
            eps = model.eps_fn(params[0])
            reward = reward_fn(params[1])
            return guide(eps, reward, schedule, scale, pinned=pinned, **options)

        return eps_fn

    def alone(params: Any, scale: float) -> EpsFn:
        del scale
        return model.eps_fn(params)

    def by_difference(params: Any, scale: float) -> EpsFn:
        own, other = params
        return guide_by_difference(
            model.eps_fn(own), model.eps_fn(other), scale, pinned=pinned
        )

    def by_energies(params: Any, scale: float) -> EpsFn:
        reward = energy_reward(model, *params)
        return guide(model.eps_fn(params[0]), reward, schedule, scale, pinned=pinned)

    def scalar(section: ConfigDict) -> Callable[[Any], RewardFn]:
        network = build_scalar(section)
        return lambda params: baselines.scalar_fn(network, params)

    learned = build_reward(config.rewards, model)
    score = steered(learned.reward_fn)
    published = steered(
        build_reward(config.paper_rewards, model).reward_fn,
        space="input",
        scale_by_variance=False,
        t_stop=e.paper_t_stop,
    )
    rows = {
        "unsteered": Method(alone, [base], 0.0),
        "expert": Method(alone, [expert], 0.0),
        "difference": Method(by_difference, [(base, expert)], 1.0),
        "score": Method(score, seeds("rewards"), 1.0),
        "score-chosen": Method(score, seeds("rewards"), None),
        "paper": Method(published, seeds("paper_rewards"), e.paper_scale),
        "discriminator": Method(
            steered(scalar(config.discriminator)), seeds("discriminator"), None
        ),
        "value": Method(steered(scalar(config.value)), seeds("value"), None),
    }
    if e.candidates > 1:
        best = lambda params: learned.reward_fn(params[1])
        unguided = lambda params, scale: alone(params[0], scale)
        rows["best-of-n"] = Method(unguided, seeds("rewards"), 0.0, rank_by=best)
    if config.model.conservative:
        rows["energies"] = Method(by_energies, [(base, expert)], 1.0)
    wanted = {*NEEDED, *(e.rows or rows)}
    return {name: method for name, method in rows.items() if name in wanted}


def make_act(config: ConfigDict, prepared: Any, model: Denoiser, method: Method) -> Act:
    """Actions of one method, compiled."""
    e, task = config.evaluation, d.LOCOMOTION[config.task]

    @jax.jit
    def act(params: Any, scale: Any, keys: Array, step: Array, obs: Any) -> Array:
        controller = make_controller(
            method.eps_fn(params, scale),  # pyright: ignore[reportArgumentType]
            model.schedule,
            prepared.normaliser,
            model.pinned,
            task.act_dim,
            num_evaluations=e.num_evaluations or None,
            rank_by=method.rank_by(params) if method.rank_by else None,
            num_candidates=e.candidates,
        )
        return controller(keys, step, obs)

    return act


def run(config: ConfigDict, act: Act, name: str, method: Method) -> dict[str, Any]:
    """All seeds of one method on the test episodes, after choosing its scale."""
    e = config.evaluation

    def episodes(params: Any, scale: float, first: int, count: int, record: int) -> list:
        parts = []
        for start in range(first, first + count, e.batch):
            seeds = range(start, min(start + e.batch, first + count))
            with tqdm(desc=f"{name} at {scale:g}", unit="step", leave=False) as bar:
                parts.append(
                    roll_out(
                        lambda: d.make_locomotion(config.task),
                        partial(act, params, np.float32(scale)),
                        list(seeds),
                        max_steps=e.max_steps,
                        stop_below=floor,
                        record=record if start == first else 0,
                        progress=bar.update,
                    )
                )
        return parts

    floor = -50.0 if e.paper_stop_below and name == "paper" else None
    tried = np.zeros((0, 2))
    if method.scale is None:
        # Judged as it will be reported: by every seed's reward, on other episodes.
        returns = lambda p, s: np.concatenate(
            [r.returns for r in episodes(p, s, VALIDATION, e.validation_episodes, 0)]
        )
        means = [
            np.concatenate([returns(p, s) for p in method.params]).mean() for s in e.scales
        ]
        tried = np.stack([np.asarray(e.scales, float), np.asarray(means)], 1)
        scale = float(e.scales[int(np.argmax(means))])
    else:
        scale = float(method.scale)
    # A row without seeds of its own gets as many episodes as one with them.
    count = e.episodes * max(config.rewards.seeds // len(method.params), 1)
    per_seed = [
        episodes(p, scale, TEST, count, e.films if i == 0 else 0)
        for i, p in enumerate(method.params)
    ]
    flat = [r for parts in per_seed for r in parts]
    films = {f"film_{i}": s for i, s in enumerate(per_seed[0][0].states)}
    return {
        "returns": np.stack([np.concatenate([r.returns for r in p]) for p in per_seed]),
        "lengths": np.stack([np.concatenate([r.lengths for r in p]) for p in per_seed]),
        "scale": np.float64(scale),
        "tried": tried,
        "planner_seconds": np.float64(sum(r.planner_seconds for r in flat)),
        "physics_seconds": np.float64(sum(r.physics_seconds for r in flat)),
        **films,
    }


def save(path: Path, arrays: dict[str, Any]) -> None:
    """Writes an archive whole or not at all."""
    d.write_arrays(path, arrays)


def read(path: Path) -> dict[str, np.ndarray]:
    """Reads an archive of :func:`save`.

    Raises:
        ValueError: naming the file, if it is damaged.
    """
    try:
        arrays = d.read_arrays(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{error}; delete it to run this method again") from error
    missing = KEYS - arrays.keys()
    if missing:
        raise ValueError(
            f"{path}: without {', '.join(sorted(missing))}; delete it to run this method "
            "again"
        )
    return arrays


def summarise(config: ConfigDict, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Scores with intervals; seeds are strata, episodes are what is resampled."""
    scores = d.normalised_score(config.task, arrays["returns"].ravel())
    scores = scores.reshape(arrays["returns"].shape)
    pooled = lambda f: lambda *rows: float(f(np.concatenate(rows)))
    seeds = [(row,) for row in scores]
    steps = int(arrays["lengths"].sum())
    seconds = float(arrays["planner_seconds"] + arrays["physics_seconds"])
    return {
        "score": list(bootstrap(pooled(np.mean), *seeds)),
        "iqm": list(bootstrap(pooled(interquartile_mean), *seeds)),
        "return": float(arrays["returns"].mean()),
        "length": float(arrays["lengths"].mean()),
        "by_seed": scores.mean(1).tolist(),
        "episodes": int(scores.size),
        "scale": float(arrays["scale"]),
        "tried": arrays["tried"].tolist(),
        "steps_per_second": steps / max(seconds, 1e-9),
        "planner_seconds": float(arrays["planner_seconds"]),
        "physics_seconds": float(arrays["physics_seconds"]),
    }


def close_gaps(config: ConfigDict, folder: Path, results: dict[str, Any]) -> None:
    """Adds (method - unsteered) / (expert - unsteered) with its interval."""
    del config
    loaded = {}
    for name in results:
        loaded[name] = read(folder / f"{name}.npz")["returns"].ravel()

    def gap(steered: np.ndarray, base: np.ndarray, expert: np.ndarray) -> float:
        span = expert.mean() - base.mean()
        return float((steered.mean() - base.mean()) / span) if span else float("nan")

    for name, result in results.items():
        if name not in ("unsteered", "expert"):
            parts = loaded[name], loaded["unsteered"], loaded["expert"]
            result["gap_closure"] = list(bootstrap(gap, *((part,) for part in parts)))


def measure_rewards(
    config: ConfigDict, prepared: Any, model: Denoiser, trained: dict[str, Params]
) -> dict[str, Any]:
    """Held-out fraction of variance unexplained per level, and AUROC, of each reward.

    ``fvu`` is on the data of both, ``steered_fvu`` where a perfectly steered base goes:
    on what the expert makes of the base's states.
    """
    e, horizon = config.evaluation, config.model.horizon
    sets = {
        name: d.make_windows(
            getattr(prepared, name)["test"],
            prepared.normaliser,
            horizon=horizon,
            pad=config.model.pad,
        )
        for name in ("base", "expert")
    }
    take = lambda w, i: np.asarray(d.draw(w, jax.random.key(i), e.windows, horizon)["x_0"])
    cut = {name: take(w, i) for i, (name, w) in enumerate(sets.items())}
    both = np.concatenate([cut["base"], cut["expert"]])
    stacked = {**sets, "expert": d.stack_windows([sets["expert"]])}
    experts = jax.tree.map(lambda x: np.asarray(x)[None], trained["expert"])
    crossed = crossed_samples(
        model, trained["base"], experts, stacked, e.windows, config.seed
    )
    steered = np.asarray(crossed["expert_at_base"].rows).reshape(-1, *model.shape)
    found = {}
    for name in ("rewards", "paper_rewards"):
        reward = build_reward(config[name], model)
        params = jax.tree.map(lambda x: x[0], trained[name])
        pair = trained["base"], trained["expert"]
        variances = measure.make_fvu(model, reward)
        residual, signal = map(np.asarray, variances(*pair, params, both))
        there, signal_there = map(np.asarray, variances(*pair, params, steered))
        measured = measure.make_values(model, reward, 1)(*pair, params, both)
        values, gap = map(np.asarray, measured)
        half = len(cut["base"])
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
