import json
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffreward.train import Diverged, Members, estimate, optimise
from diffreward.train.record import truncate_rows
from tests.train import toy
from tests.train.rows import rows


def exploding(at, member=None):
    """A task whose loss is NaN when the parameter, which counts steps, reaches ``at``.

    With plain gradient descent at rate 1 the loss -w adds one to w at every step.
    """

    def loss(params, frozen, key, batch):
        del key, batch
        bad = (params >= at) & (frozen == 1)
        return jnp.where(bad, jnp.nan, -1.0) * params, {}

    draw = lambda data, key: data[:2]
    task = toy.TASK._replace(init=lambda key: jnp.zeros(()), loss=loss, draw=draw)
    frozen = np.ones(3, np.float32)
    if member is not None:
        frozen = np.eye(3, dtype=np.float32)[member]
    settings = {**toy.run.keywords, "data": np.zeros((2, 1), np.float32)}
    return task, settings, frozen


def test_divergence_names_stage_step_and_checkpoint(tmp_path):
    task, settings, _ = exploding(at=33)
    settings |= {"frozen": np.float32(1), "workdir": tmp_path, "name": "reward"}
    with pytest.raises(Diverged) as error:
        optimise(task, optax.sgd(1.0), **settings)
    message = str(error.value)
    assert message.startswith("reward diverged at step 34: loss nan")  # the 34th update
    assert str(tmp_path / "checkpoint" / "20") in message
    assert "\n" not in message
    kept = [p.name for p in (tmp_path / "checkpoint").iterdir() if p.is_dir()]
    assert kept == ["20"]


def test_divergence_names_the_member(tmp_path):
    task, settings, frozen = exploding(at=5, member=1)
    settings |= {"frozen": frozen, "workdir": tmp_path}
    settings |= {"members": Members(3, frozen_axes=0)}
    with pytest.raises(Diverged, match="at step 6 of member 1.*none yet"):
        optimise(task, optax.sgd(1.0), **settings)


def test_overflow_of_the_last_update_is_not_saved(tmp_path):
    """Finite loss and gradient, yet the updated parameter is infinite."""
    task, settings, _ = exploding(at=1e9)
    settings |= {"frozen": np.float32(1), "workdir": tmp_path, "steps": 1}
    with pytest.raises(Diverged, match="updated parameters are not finite"):
        optimise(task, optax.scale(-np.inf), **settings)
    assert not [p for p in (tmp_path / "checkpoint").iterdir() if p.is_dir()]


def test_rows_hold_the_means_of_their_dispatch(tmp_path):
    """The loss is -w with w = 0, 1, 2, ...; a dispatch of ten averages nine halves."""
    task, settings, _ = exploding(at=1e9)
    settings |= {"frozen": np.float32(0), "workdir": tmp_path, "steps": 20}
    settings |= {"loop": toy.LOOP._replace(evaluate=lambda s: {"w": s.params})}
    optimise(task, optax.sgd(1.0), **settings)
    table = rows(tmp_path)
    assert [r["step"] for r in table] == [10, 20, 20]
    assert table[0]["train/loss"] == -4.5
    assert table[1]["train/loss"] == -14.5
    assert table[2]["eval/w"] == 20.0
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_truncation_drops_later_rows_and_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": s}) + "\n" for s in (10, 20, 30)]
    path.write_text("".join(lines) + '{"ste')
    truncate_rows(path, 20)
    assert path.read_text() == "".join(lines[:2])
    truncate_rows(path, 20)
    assert path.read_text() == "".join(lines[:2])


def test_values_that_are_not_finite_become_null(tmp_path):
    loop = toy.LOOP._replace(evaluate=lambda s: {"x": np.array([1.0, np.inf])})
    toy.run(workdir=tmp_path, steps=10, loop=loop)
    assert rows(tmp_path)[-1]["eval/x"] == [1.0, None]


def test_wandb_only_if_asked_for(tmp_path, monkeypatch):
    logged, opened = [], []
    session = types.SimpleNamespace(
        log=lambda values, step: logged.append((step, values)), finish=lambda: None
    )
    fake = types.SimpleNamespace(init=lambda **kw: opened.append(kw) or session)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    toy.run(workdir=tmp_path / "without", steps=10)
    assert not opened
    toy.run(
        workdir=tmp_path / "with", steps=10, loop=toy.LOOP._replace(wandb={"project": "p"})
    )
    assert opened[0]["project"] == "p"
    [(step, values)] = logged
    assert step == 10
    assert values["train/loss"] == rows(tmp_path / "with")[0]["train/loss"]


def test_progress_without_a_terminal_announces_the_run(tmp_path, capsys):
    loop = toy.LOOP._replace(progress=True)
    toy.run(workdir=tmp_path, steps=10, loop=loop)
    toy.run(workdir=tmp_path, steps=10, loop=loop)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("toy: 10 steps, 48 parameters")
    assert second == "toy: already finished at step 10"


def test_estimate_counts():
    task, tx = toy.TASK, optax.adam(1e-2)
    one = estimate(task, tx, data=toy.DATA, frozen=toy.FROZEN)
    parameters = 6 * toy.WIDTH
    assert one["parameters"] == parameters
    # Parameters, average and two moments in float32; two int32 counters.
    assert one["state_bytes"] == 4 * (4 * parameters) + 2 * 4
    assert one["input_bytes"] == toy.DATA.nbytes + toy.FROZEN.nbytes
    assert one["batch_bytes"] == toy.BATCH * 4 * 4
    three = estimate(task, tx, data=toy.DATA, frozen=toy.FROZEN, members=Members(3))
    assert three["parameters"] == parameters
    assert three["batch_bytes"] == 3 * one["batch_bytes"]


def test_estimate_counts_the_products():
    """One dense layer: 2 n m per example forward, as much for its weight gradient."""
    n, m = 64, 128

    def loss(params, frozen, key, batch):
        del frozen, key
        return jnp.mean(batch @ params), {}

    task = toy.TASK._replace(
        init=lambda key: jnp.zeros((n, m)),
        loss=loss,
        draw=lambda data, key: data,
    )
    data = jax.ShapeDtypeStruct((16, n), jnp.float32)
    flops = estimate(task, optax.sgd(1.0), data=data)["flops_per_step"]
    assert flops == pytest.approx(2 * 2 * 16 * n * m, rel=0.3)
