"""Episodes of one method in the simulator, and the archive that holds them."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from jaxtyping import Float, Int
from tqdm import tqdm

from diffreward import data as d
from diffreward.steer import (
    Choice,
    Rollouts,
    choose_scale,
    make_controller,
    roll_out,
    score_on_test,
)
from diffreward.types import Params
from experiments.locomotion.record import Run
from experiments.locomotion.rows import Method

VALIDATION, TEST = 10_000, 20_000
"""First seeds of the episodes that choose a scale, and of those that are reported."""
KEYS = {"returns", "lengths", "scale", "tried", "planner_seconds", "physics_seconds"}
"""What an archive holds for certain; films are more."""
STOP = -50.0
"""Return at which the published code ends an episode."""
Act = Callable[[Params, np.float32, Array, Array, Array], Array]
"""Actions from (parameters, scale, keys, step, observations)."""
Arrays = dict[str, np.ndarray]


class Played(NamedTuple):
    """Episodes of every member of a method: of every seed of its reward."""

    returns: Float[np.ndarray, "members episodes"]
    lengths: Int[np.ndarray, "members episodes"]
    films: list[np.ndarray]
    """qpos and qvel of every step, of the episodes that were recorded."""
    planner_seconds: float
    physics_seconds: float


def make_act(run: Run, normaliser: d.Normaliser, method: Method) -> Act:
    """Actions of one method, compiled."""
    e, model = run.config.evaluation, run.denoiser

    @jax.jit
    def act(params: Params, scale: Array, keys: Array, step: Array, obs: Array) -> Array:
        controller = make_controller(
            method.eps_fn(params, scale),  # pyright: ignore[reportArgumentType]
            model.schedule,
            normaliser,
            model.pinned,
            run.task.act_dim,
            num_evaluations=e.num_evaluations or None,
            rank_by=method.rank_by(params) if method.rank_by else None,
            num_candidates=e.candidates,
        )
        return controller(keys, step, obs)

    return act


def evaluate_method(run: Run, act: Act, name: str, method: Method) -> Arrays:
    """All seeds of one method on the test episodes, after choosing its scale.

    A scale is judged as it will be reported: by every seed's reward, on other episodes.
    """
    e = run.config.evaluation
    play = partial(play_all, run, act, name, method)
    tested: list[Played] = []

    def validate(scale: float, seeds: Sequence[int]) -> np.ndarray:
        return play(scale, seeds).returns

    def test(scale: float, seeds: Sequence[int]) -> np.ndarray:
        tested.append(play(scale, seeds, films=e.films))
        return tested[-1].returns

    choice = Choice(float(method.scale or 0.0), (), ())
    if method.scale is None:
        spent = range(VALIDATION, VALIDATION + e.validation_episodes)
        choice = choose_scale(validate, e.scales, spent)
    # A row without seeds of its own gets as many episodes as one with them.
    count = e.episodes * max(run.config.rewards.seeds // len(method.params), 1)
    returns = score_on_test(test, choice, range(TEST, TEST + count))
    means = {point.scale: point.mean for point in choice.points}
    tried = [(float(s), means[float(s)]) for s in (e.scales if means else ())]
    (found,) = tested
    return {
        "returns": returns,
        "lengths": found.lengths,
        "scale": np.array(choice.scale, np.float64),
        "tried": np.array(tried, float).reshape(-1, 2),
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
    seeds: Sequence[int],
    films: int = 0,
) -> Played:
    """The same episodes for every member, of whom the first's first ones are filmed."""
    e = run.config.evaluation
    floor = STOP if e.paper_stop_below and name == "paper" else None

    def play(params: Params, films: int) -> list[Rollouts]:
        parts = []
        for first in range(0, len(seeds), e.batch):
            with tqdm(desc=f"{name} at {scale:g}", unit="step", leave=False) as bar:
                parts.append(
                    roll_out(
                        partial(d.make_locomotion, run.config.task),
                        partial(act, params, np.float32(scale)),
                        seeds[first : first + e.batch],
                        max_steps=e.max_steps,
                        stop_below=floor,
                        record=0 if first else films,
                        progress=bar.update,
                    )
                )
        return parts

    members = [play(p, 0 if i else films) for i, p in enumerate(method.params)]
    flat = [part for parts in members for part in parts]
    return Played(
        returns=np.stack([np.concatenate([r.returns for r in m]) for m in members]),
        lengths=np.stack([np.concatenate([r.lengths for r in m]) for m in members]),
        films=list(members[0][0].states),
        planner_seconds=sum(r.planner_seconds for r in flat),
        physics_seconds=sum(r.physics_seconds for r in flat),
    )


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
