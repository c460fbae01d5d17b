"""Several processes as one run: the same report, one owner of the folder, a clean stop."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffreward import files, processes
from diffreward.report import read_json
from diffreward.train import read_rows

STAGES = ("base", "experts", "rewards", "window_rewards")
ROOT = Path(__file__).parents[1]


def port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def environment(devices):
    flags = f"--xla_force_host_platform_device_count={devices}"
    return os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT / "src")}


def begin(command, count, devices, **more):
    """The same command in several processes."""
    where = f"localhost:{port()}"
    return [
        subprocess.Popen(
            [*command, f"--distributed={where},{count},{i}"],
            env=environment(devices) | more,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]


def end(started, timeout=300):
    said = [p.communicate(timeout=timeout) for p in started]
    return [p.returncode for p in started], said


@pytest.mark.parametrize(
    ("told", "launcher"),
    [
        ({}, ""),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"}, ""),  # a shell within a job
        ({"SLURM_STEP_NUM_TASKS": "1"}, ""),
        ({"SLURM_STEP_NUM_TASKS": "2"}, "Slurm"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "Open MPI"),
        ({"TPU_WORKER_HOSTNAMES": "host-0"}, ""),
        ({"TPU_WORKER_HOSTNAMES": "host-0,host-1"}, "a TPU slice"),
    ],
)
def test_who_has_started_several_processes(told, launcher):
    assert processes.launched(told) == launcher


@pytest.mark.parametrize(
    "told", ["", "on", "localhost,2,0", "a:1,2", "a:1,2,2", "a:1,2,-1"]
)
def test_what_joins_nobody_is_refused(told):
    with pytest.raises(ValueError, match="is none of auto, off and ADDRESS:PORT,N,I"):
        processes.join(told)


def test_a_single_process_waits_for_nobody():
    processes.join("off")
    processes.wait("here")
    assert processes.agree([1, "a"]) == [1, "a"]


def test_patience_is_a_number_of_seconds(monkeypatch):
    assert processes.patience() == 24 * 3600
    monkeypatch.setenv("DIFFREWARD_WAIT", "soon")
    with pytest.raises(
        ValueError, match="DIFFREWARD_WAIT = 'soon' is no number of seconds"
    ):
        processes.patience()


def test_who_follows_writes_nothing_but_its_own_part(tmp_path, monkeypatch):
    monkeypatch.setattr(files.owner, "_follows", True)
    kept = tmp_path / "kept"
    with files.own_part():
        files.write_text(kept, "kept")
    with files.writing(tmp_path / "folder") as made:
        made.mkdir()
        (made / "a").write_text("a")
    files.write_text(tmp_path / "b", "b")
    with files.opened(tmp_path / "c") as file:
        file.write("c")
    files.remove(kept)
    with files.claim(tmp_path / "d"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def command(workdir):
    return [
        *(sys.executable, "-m", "experiments.maze2d"),
        "--config=configs/maze2d.py:umaze,smoke",
        f"--workdir={workdir}",
        "--config.goals=(1,)",
        *(f"--config.{stage}.steps=20" for stage in STAGES),
        *(f"--config.{stage}.steps_per_dispatch=10" for stage in STAGES),
    ]


def numbers(folder):
    """Of every stage, without how long it took."""
    found = {
        str(path.relative_to(folder)): read_json(path)
        for path in sorted(folder.rglob("report.json"))
    }
    for report in found.values():
        report.pop("seconds", None)
    return json.dumps(found, sort_keys=True)


PROGRAM = """
import sys
from pathlib import Path
import jax, jax.numpy as jnp, numpy as np
from diffreward import data, processes, report
from diffreward.train import Task
processes.join(sys.argv[2].removeprefix("--distributed="))
from configs.common import training
from experiments import stages

folder = Path(sys.argv[1])
if not report.open_stage(folder / "data", {"rows": 64}):
    print("made here")
    made = np.random.default_rng().normal(size=(64, 3))  # another in every process
    data.write_arrays(folder / "data" / "x.npz", {"x": made.astype(np.float32)})
    report.close_stage(folder / "data", {"rows": 64})
x = data.read_arrays(folder / "data" / "x.npz")["x"]

def loss(params, frozen, key, batch):
    error = jnp.square(jnp.tanh(batch @ params["w"]) - batch).mean()
    return error, {"size": jnp.abs(params["w"]).sum()}

pick = lambda rows, key: rows[jax.random.randint(key, (8,), 0, len(rows))]
task = Task(lambda key: {"w": jax.random.normal(key, (3, 3))}, loss, pick)
section = training(steps=int(sys.argv[3]), batch_size=8, learning_rate=1e-2)
section.checkpoint_every, section.schedule = 20, "constant"
params = stages.train_stage(
    folder / "fit", task, section, settings={}, inputs={}, data=jnp.asarray(x), seed=0,
    evaluate=lambda state: {"sum": state.params["w"].sum()},
)
report.write_json(folder / "report.json", np.asarray(params["w"]))
processes.wait("the end")
"""


def toy(folder, steps=40):
    return [sys.executable, "-c", PROGRAM, str(folder)], [str(steps)]


def begin_toy(folder, count, devices, steps=40):
    first, last = toy(folder, steps)
    where = f"localhost:{port()}"
    told = [f"--distributed={where},{count},{i}" for i in range(count)]
    return [
        subprocess.Popen(
            [*first, one if count > 1 else "--distributed=off", *last],
            env=environment(devices),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for one in told
    ]


def test_two_processes_train_as_one(tmp_path):
    """Data by the first, steps by both, to the last bit; also when they go on."""
    codes, said = end(begin_toy(tmp_path / "two", 2, 1, steps=20))
    assert codes == [0, 0], said
    assert ["made here" in out for out, _ in said] == [True, False]
    (tmp_path / "two" / "fit" / "config.json").unlink()
    codes, said = end(begin_toy(tmp_path / "two", 2, 1))
    assert codes == [0, 0], said
    one = tmp_path / "one"
    shutil.copytree(tmp_path / "two" / "data", one / "data")
    codes, said = end(begin_toy(one, 1, 2))
    assert codes == [0], said
    assert read_json(one / "report.json") == read_json(tmp_path / "two" / "report.json")
    rows = [
        read_rows(folder / "fit" / "metrics.jsonl") for folder in (one, tmp_path / "two")
    ]
    last = [{k: v for k, v in r[-1].items() if "second" not in k} for r in rows]
    assert last[0] == last[1]


@pytest.mark.slow
def test_two_processes_end_with_the_report_of_one(tmp_path):
    """To the last bit with one device each: the sum of two gradients has no order."""
    alone = subprocess.run(
        [*command(tmp_path / "one"), "--distributed=off"],
        env=environment(2),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert alone.returncode == 0, alone.stderr[-2000:]
    codes, said = end(begin(command(tmp_path / "two"), 2, 1))
    assert codes == [0, 0], said
    assert numbers(tmp_path / "two") == numbers(tmp_path / "one")


@pytest.mark.slow
def test_a_killed_process_stops_the_others_and_the_run_goes_on(tmp_path):
    workdir = tmp_path / "run"
    whole = subprocess.run(
        [*command(tmp_path / "one"), "--distributed=off"],
        env=environment(2),
        cwd=ROOT,
        capture_output=True,
        timeout=600,
    )
    assert whole.returncode == 0
    started = begin(command(workdir), 2, 1)
    until = time.monotonic() + 300
    while not (workdir / "base" / "report.json").exists() and time.monotonic() < until:
        time.sleep(0.1)
    started[1].kill()
    codes, _ = end(started)
    assert codes[0] != 0  # told, and not by us
    codes, said = end(begin(command(workdir), 2, 1))
    assert codes == [0, 0], said
    assert numbers(workdir) == numbers(tmp_path / "one")


MEET = """
import sys
import time
from diffreward import processes
processes.join(sys.argv[1].removeprefix("--distributed="))
from diffreward.cli.guard import guarded
if not sys.argv[1].endswith("1"):
    sys.exit(guarded(lambda: processes.wait("the corner")))
import time; time.sleep(20)
"""


def test_who_waits_in_vain_says_where():
    started = begin([sys.executable, "-c", MEET], 2, 1, DIFFREWARD_WAIT="3")
    said = started[0].communicate(timeout=100)[1]
    started[1].kill()
    started[1].communicate()
    assert started[0].returncode == 1
    assert "process 0 of 2 waited 3 s at 'the corner'" in said
