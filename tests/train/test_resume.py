import os
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from diffreward.train import (
    Loop,
    Members,
    Numerics,
    Placement,
    TrainState,
    init_state,
    make_train_step,
    optimise,
)
from tests.train import toy
from tests.train.rows import rows

ROOT = Path(__file__).parents[2]


class Interrupted(Exception):  # noqa: N818
    """Stands for whatever ends a process early."""


def watched(evaluate, **changes):
    return toy.LOOP._replace(evaluate=evaluate, **changes)


def by_hand(member, steps, data=toy.DATA):
    """The same run as a Python loop over single steps, keys derived in the open."""
    tx = optax.adam(1e-2)
    init_key, run_key = jax.random.split(jax.random.key(0))
    state = init_state(toy.init, tx, init_key)
    if member:
        params = toy.init(jax.random.fold_in(init_key, member))
        state = TrainState(state.step, params, params, tx.init(params))
    draw = jax.jit(toy.draw)
    step = jax.jit(make_train_step(toy.loss, tx, Numerics(ema_decay=0.995)))
    for n in range(steps):
        key = jax.random.fold_in(jax.random.fold_in(run_key, n), member)
        draw_key, loss_key = jax.random.split(key)
        batch = draw(data, draw_key)
        state, _ = step(state, toy.FROZEN, loss_key, batch)
    return state


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("unbroken")
    state = toy.run(workdir=workdir, loop=watched(lambda s: {"step": s.step}))
    return state, rows(workdir)


def test_fit_equals_a_python_loop(unbroken):
    toy.assert_close(unbroken[0], by_hand(0, 60))


def test_population_equals_separate_runs(tmp_path):
    """Members have their own data and share what is frozen."""
    data = np.stack([toy.DATA, -toy.DATA, 2 * toy.DATA])
    state = toy.run(workdir=tmp_path, steps=20, members=Members(3, data_axes=0), data=data)
    for i in range(3):
        member = jax.tree.map(lambda x, i=i: x[i] if x.ndim else x, state)
        toy.assert_close(member, by_hand(i, 20, data[i]))


@pytest.mark.parametrize("at", [20, 30, 50])
def test_interrupted_run_ends_with_the_same_bits(tmp_path, unbroken, at):
    def evaluate(state):
        if int(state.step) == at and not (tmp_path / "once").exists():
            (tmp_path / "once").touch()
            raise Interrupted
        return {"step": state.step}

    with pytest.raises(Interrupted):
        toy.run(workdir=tmp_path, loop=watched(evaluate, evaluate_every=10))
    state = toy.run(workdir=tmp_path, loop=watched(lambda s: {"step": s.step}))
    toy.assert_same_bits(state, unbroken[0])
    # Evaluation ran more often before the interruption; the training rows agree.
    train = lambda table: [r for r in table if "train/loss" in r]
    assert train(rows(tmp_path)) == train(unbroken[1])


def test_killed_run_ends_with_the_same_bits(tmp_path, unbroken):
    """SIGKILL leaves no time to finish a write."""
    child = f"""
        import os, signal, time
        from pathlib import Path
        from tests.train import toy

        def evaluate(state):
            done = Path({str(tmp_path)!r}, "checkpoint", "20")
            if int(state.step) >= 40:
                while not done.exists():
                    time.sleep(0.01)
                os.kill(os.getpid(), signal.SIGKILL)
            return {{}}

        loop = toy.LOOP._replace(evaluate=evaluate, evaluate_every=10)
        toy.run(workdir={str(tmp_path)!r}, loop=loop)
    """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(child)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert process.returncode == -9, process.stderr
    assert (tmp_path / "checkpoint" / "20").exists()
    state = toy.run(workdir=tmp_path, loop=watched(lambda s: {"step": s.step}))
    toy.assert_same_bits(state, unbroken[0])
    train = lambda table: [r for r in table if "train/loss" in r]
    assert train(rows(tmp_path)) == train(unbroken[1])


def test_steps_need_not_be_a_multiple_of_the_dispatch(tmp_path):
    """25 steps stopped at 15 and then extended equal 25 steps in one go."""
    toy.run(workdir=tmp_path / "a", steps=15)
    extended = toy.run(workdir=tmp_path / "a", steps=25)
    toy.assert_close(extended, toy.run(workdir=tmp_path / "b", steps=25))
    assert int(extended.step) == 25


def test_loss_is_traced_once_per_run(tmp_path):
    traced = []

    def loss(params, frozen, key, batch):
        traced.append(None)
        return toy.loss(params, frozen, key, batch)

    def run(steps):
        traced.clear()
        optimise(
            toy.TASK._replace(loss=loss),
            optax.adam(1e-2),
            **{**toy.run.keywords, "steps": steps, "workdir": tmp_path},
        )
        return len(traced)

    assert run(40) == 1
    assert run(80) == 1  # resumed
    assert run(80) == 0  # finished: restored, never compiled


def test_a_run_beyond_the_steps_asked_for_is_refused(tmp_path):
    toy.run(workdir=tmp_path, steps=20)
    with pytest.raises(ValueError, match="already at step 20, beyond the 10 asked for"):
        toy.run(workdir=tmp_path, steps=10)


def test_fed_data_are_a_function_of_the_step_and_survive_interruption(tmp_path):
    """Data exchanged every 20 steps: unbroken, by hand, and interrupted in between."""
    other = (2 * toy.DATA).astype(np.float32)
    feed = lambda step: other if (step // 20) % 2 else toy.DATA
    whole = toy.run(workdir=tmp_path / "whole", data=feed)

    tx = optax.adam(1e-2)
    init_key, run_key = jax.random.split(jax.random.key(0))
    state = init_state(toy.init, tx, init_key)
    step = jax.jit(make_train_step(toy.loss, tx, Numerics(ema_decay=0.995)))
    for n in range(60):
        key = jax.random.fold_in(jax.random.fold_in(run_key, n), 0)
        draw_key, loss_key = jax.random.split(key)
        state, _ = step(state, toy.FROZEN, loss_key, toy.draw(feed(n), draw_key))
    toy.assert_close(whole, state)

    def stopped(step):
        if step == 40:
            raise Interrupted
        return feed(step)

    with pytest.raises(Interrupted):
        toy.run(workdir=tmp_path / "broken", data=stopped)
    again = toy.run(workdir=tmp_path / "broken", data=feed)
    toy.assert_same_bits(again, whole)


def test_the_records_hold_the_defaults_that_runs_were_made_with():
    """A default that moves changes runs that never named it."""
    assert tuple(Members()) == (None, None, None)
    assert tuple(Numerics()) == (0.995, 1, None)
    assert tuple(Placement()) == (None, ())
    assert tuple(Loop()) == (50, 100, 1000, None, None, 1000, True, None)
