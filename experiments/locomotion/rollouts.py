"""Episodes of one method in the simulator, and the archive that holds them."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jaxtyping import Float, Int
from tqdm import tqdm

from diffreward import data as d
from diffreward.steer import (
    Choice,
    Controller,
    Rollouts,
    choose_scale,
    make_controller,
    roll_out,
    score_on_test,
)
from diffreward.types import Params
from experiments.locomotion.record import Run
from experiments.locomotion.rows import Method

VALIDATION, TEST = 10_000, 1_000_000
"""First seeds of the episodes that choose a scale, and of those that are reported. Those
in between are spent: horizons, steps and samplers were chosen on them."""
KEYS = {
    "returns",
    "lengths",
    "rewards",
    "scale",
    "t_stop",
    "tried",
    "planner_seconds",
    "physics_seconds",
}
"""What an archive holds for certain; films are more."""
VISITED, SPACING = 512, 10
"""States of the first member that are kept, of those of every so many steps."""
STOP = -50.0
"""Return at which the published code ends an episode."""
Act = Callable[[Params, np.float32, np.int32, Array, Array, Array], Array]
"""Actions from (parameters, scale, last level guided, keys, step, observations)."""
Arrays = dict[str, np.ndarray]


class Played(NamedTuple):
    """Episodes of every member of a method: of every seed of its reward."""

    returns: Float[np.ndarray, "members episodes"]
    lengths: Int[np.ndarray, "members episodes"]
    rewards: Float[np.ndarray, "members episodes steps"]
    films: list[np.ndarray]
    """qpos and qvel of every step, of the episodes that were recorded."""
    planner_seconds: float
    physics_seconds: float
    visited: Float[np.ndarray, "states obs"]
    """What the first member observed, of all of it at most ``VISITED``."""


def make_act(run: Run, normaliser: d.Normaliser, method: Method) -> Act:
    """Actions of one method, compiled."""
    e, model = run.config.evaluation, run.denoiser

    @jax.jit
    def act(params, scale, t_stop, keys: Array, step: Array, obs: Array) -> Array:
        eps_fn = method.eps_fn(params, scale, t_stop)
        controller = make_controller(
            eps_fn,
            model.schedule,
            normaliser,
            model.pinned,
            run.task.act_dim,
            num_actions=e.num_actions,
            num_evaluations=e.num_evaluations or None,
            rank_by=method.rank_by(params) if method.rank_by else None,
            num_candidates=e.candidates,
            sampler=method.sampler(params, eps_fn) if method.sampler else None,
        )
        return controller(keys, step, obs)

    return act


class Guidance(NamedTuple):
    """How a method guides, and what validation said of what was tried."""

    choice: Choice
    t_stop: int
    tried: list[tuple[int, float, float]]
    """Last level guided, scale, and mean return."""


def choose_guidance(
    play: Callable[..., Played], method: Method, scales: Sequence[float], count: int
) -> Guidance:
    """The fixed guidance of a method, or the best on ``count`` validation episodes.

    Scales are judged as they will be reported: by every seed's reward, on other episodes.
    """
    if method.scale is not None:
        return Guidance(Choice(method.scale, (), ()), method.t_stops[0], [])
    spent = range(VALIDATION, VALIDATION + count)
    found: list[tuple[float, int, Choice]] = []
    for t_stop in method.t_stops:

        def returns(scale: float, seeds: Sequence[int], t_stop: int = t_stop) -> np.ndarray:
            return play(scale, t_stop, [seeds] * len(method.params)).returns

        choice = choose_scale(returns, scales, spent)
        found.append((max(p.mean for p in choice.points), t_stop, choice))
    _, t_stop, choice = max(found, key=lambda f: f[0])
    tried = [(stop, p.scale, p.mean) for _, stop, c in found for p in c.points]
    return Guidance(choice, t_stop, tried)


def evaluate_method(
    run: Run, act: Act, name: str, method: Method, done: dict[Any, Played]
) -> Arrays:
    """All seeds of one method on the test episodes, after choosing its guidance.

    Methods that act alike play the same episodes: ``done`` keeps those of this call.
    """
    e, members = run.config.evaluation, len(method.params)
    play = partial(play_all, run, act, name, method)
    guidance = choose_guidance(play, method, e.scales, e.validation_episodes)
    # Seeds of a reward have episodes of their own; a row without seeds gets as many.
    count = e.episodes * max(run.config.rewards.seeds // members, 1)
    tested: list[Played] = []

    def test(scale: float, seeds: Sequence[int]) -> np.ndarray:
        own = [seeds[i * count : (i + 1) * count] for i in range(members)]
        how = (method.eps_fn, method.rank_by, method.sampler)
        alike = (*how, id(method.params), scale, guidance.t_stop)
        if alike not in done:
            done[alike] = play(scale, guidance.t_stop, own, films=e.films)
        tested.append(done[alike])
        return tested[-1].returns.ravel()

    returns = score_on_test(test, guidance.choice, range(TEST, TEST + members * count))
    (found,) = tested
    return {
        "returns": returns.reshape(members, count),
        "lengths": found.lengths,
        "rewards": found.rewards,
        "scale": np.array(guidance.choice.scale, np.float64),
        "t_stop": np.array(guidance.t_stop, np.int64),
        "tried": np.array(guidance.tried, float).reshape(-1, 3),
        "visited": found.visited,
        "planner_seconds": np.array(found.planner_seconds, np.float64),
        "physics_seconds": np.array(found.physics_seconds, np.float64),
        **{f"film_{i}": states for i, states in enumerate(found.films)},
    }


def play_all(
    run: Run,
    act: Act,
    name: str,
    method: Method,
    scale: float,
    t_stop: int,
    seeds: Sequence[Sequence[int]],
    films: int = 0,
) -> Played:
    """The episodes of every member, of whom the first's first ones are filmed."""
    e = run.config.evaluation
    seen: list[np.ndarray] = []
    floor = STOP if e.paper_stop_below and name == "means" else None

    def play(params: Params, seeds: Sequence[int], first: bool) -> list[Rollouts]:
        parts, acting = [], partial(act, params, np.float32(scale), np.int32(t_stop))

        acting = watched(acting, seen, SPACING) if first else acting
        for start in range(0, len(seeds), e.batch):
            with tqdm(desc=f"{name} at {scale:g}", unit="step", leave=False) as bar:
                parts.append(
                    roll_out(
                        partial(d.make_locomotion, run.config.task),
                        acting,
                        seeds[start : start + e.batch],
                        max_steps=e.max_steps,
                        stop_below=floor,
                        record=films if first and not start else 0,
                        progress=bar.update,
                    )
                )
        return parts

    own = zip(method.params, seeds, strict=True)
    members = [play(p, s, not i) for i, (p, s) in enumerate(own)]
    flat = [part for parts in members for part in parts]
    join = lambda field: np.stack(
        [np.concatenate([getattr(r, field) for r in m]) for m in members]
    )
    return Played(
        returns=join("returns"),
        lengths=join("lengths"),
        rewards=join("rewards"),
        films=list(members[0][0].states),
        planner_seconds=sum(r.planner_seconds for r in flat),
        physics_seconds=sum(r.physics_seconds for r in flat),
        visited=some(np.concatenate(seen), VISITED),
    )


def watched(act: Controller, seen: list[np.ndarray], spacing: int = 1) -> Controller:
    """The same actions; ``seen`` gathers what was observed at every so many steps."""

    def acting(keys: Array, step: Array, observations: Any) -> Any:
        if int(step) % spacing == 0:
            seen.append(np.array(observations))
        return act(keys, step, observations)

    return acting


def some(rows: np.ndarray, count: int) -> np.ndarray:
    """At most ``count`` rows, evenly chosen by a fixed seed."""
    picks = np.random.default_rng(0).permutation(len(rows))[:count]
    return rows[np.sort(picks)]


def save(path: Path, arrays: Arrays) -> None:
    """Writes an archive whole or not at all."""
    d.write_arrays(path, arrays)


def read(path: Path) -> Arrays:
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
