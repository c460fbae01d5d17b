"""States that a steered base comes by, and its plans from there.

Training on them is DAgger (Ross, Gordon & Bagnell, 2011): a learner is asked where it goes
itself, not where its teacher goes.
"""

import time
from functools import partial

import jax
import numpy as np

from diffreward import data as d
from diffreward import report
from diffreward.steer import guide, plan, roll_out
from diffreward.types import Params
from experiments import samples
from experiments.baselines import members
from experiments.locomotion.record import Run
from experiments.locomotion.rollouts import make_act, some, watched
from experiments.locomotion.rows import Method, steered

FIRST = 500_000
"""First seed of the episodes, which are neither of a choice nor of a report."""


def visited_states(
    run: Run, normaliser: d.Normaliser, base: Params, rewards: Params, name: str, turn: int
) -> np.ndarray:
    """What every member's steered base observes, (members, states, obs), kept in a stage.

    Args:
        run: of the rewards.
        normaliser: of ``[action, observation]``.
        base: parameters of the base.
        rewards: parameters of the stage ``name``, stacked.
        name: of the stage that trained them.
        turn: number of the round; its episodes are its own.
    """
    section, e = run.config.rewards, run.config.evaluation
    folder = run.workdir / f"visited_{turn}"
    settings = {
        "episodes": section.visits,
        "max_steps": e.max_steps,
        "num_actions": e.num_actions,
        "num_evaluations": e.num_evaluations,
        "seed": run.config.seed,
    }
    done = report.open_stage(folder, settings, run.digests("data", "base", name))
    path = folder / "states.npz"
    if done:
        return d.read_arrays(path)["states"]
    began = time.time()
    method = Method(steered(run, run.rewards["rewards"].reward_fn), [], 1.0)
    act = make_act(run, normaliser, method)
    each = members(rewards)
    found = []
    for i, params in enumerate(each):
        seen: list[np.ndarray] = []
        acting = partial(act, (base, params), np.float32(1.0), np.int32(0))
        first = FIRST + (turn * len(each) + i) * section.visits
        roll_out(
            partial(d.make_locomotion, run.config.task),
            watched(acting, seen),
            range(first, first + section.visits),
            max_steps=e.max_steps,
        )
        found.append(np.concatenate(seen))
    # As many of every member, whose episodes may be of other lengths.
    count = min(len(states) for states in found)
    states = np.stack([some(x, min(count, section.samples)) for x in found])
    d.write_arrays(path, {"states": states})
    report.close_stage(folder, {"states": count, "seconds": time.time() - began})
    return states


def steered_plans(
    run: Run,
    normaliser: d.Normaliser,
    base: Params,
    reward: Params,
    states: np.ndarray,
    seed: int,
) -> np.ndarray:
    """Plans of the steered base from observations, (states, horizon, dim), normalised."""
    model, act_dim = run.denoiser, run.task.act_dim
    horizon, dim = model.shape
    rows = np.zeros((len(states), dim), np.float32)
    rows[:, act_dim:] = states
    known = np.repeat(d.normalise(normaliser, rows)[:, None], horizon, 1)
    rho = run.rewards["rewards"].reward_fn(reward)
    eps_fn = guide(model.eps_fn(base), rho, model.schedule, 1.0, pinned=model.pinned)
    draw = jax.jit(
        lambda key, known: plan(eps_fn, model.schedule, key, known, model.pinned)
    )
    key, parts = jax.random.key(seed), []
    for n in range(0, len(known), samples.CHUNK):
        chunk = known[n : n + samples.CHUNK]
        parts.append(np.asarray(draw(jax.random.fold_in(key, n), chunk)))
    return np.concatenate(parts)


def visited_windows(
    run: Run,
    normaliser: d.Normaliser,
    base: Params,
    rewards: Params,
    states: np.ndarray,
    split: str,
    count: int,
) -> d.Windows:
    """Plans of every member from its own states, stacked; a fifth is for validation."""
    cut = states.shape[1] * 4 // 5
    own = (states[:, :cut] if split == "train" else states[:, cut:])[:, :count]
    zero = -np.asarray(normaliser.shift / normaliser.scale)[: run.task.act_dim]
    seed = run.config.seed + d.SPLITS.index(split)
    banks = [
        samples.sample_windows(
            steered_plans(run, normaliser, base, params, own[i], seed + 100 * i), zero
        )
        for i, params in enumerate(members(rewards))
    ]
    return d.stack_windows(banks)
