"""Several processes as one run, by JAX's own runtime: who they are, and where they meet.

Process 0 owns the run's folder: it generates, writes and draws, while the others wait at
named places, and all of them train together.
"""

import contextlib
import json
import os
from typing import Any

import jax
import numpy as np

from diffreward import files

PATIENCE = "DIFFREWARD_WAIT"
"""Variable of the environment: seconds that processes wait for one another."""
DAY = 24 * 3600
CLUSTERS = {
    "SLURM_STEP_NUM_TASKS": "Slurm",
    "OMPI_COMM_WORLD_SIZE": "Open MPI",
}
"""Variables that count the processes of a job, where its launcher sets them."""
HOSTS = ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES")
"""Variables that name the hosts of a TPU slice, with commas."""


def join(told: str) -> None:
    """Joins the other processes of a run, before any device is used.

    Args:
        told: ``off``; ``auto``, which joins where Slurm, Open MPI or a TPU slice has
            started several processes; or ``ADDRESS,N,I``: where process 0 listens, the
            number of processes, and the number of this one.

    Raises:
        ValueError: for anything else, or if the others cannot be reached.
    """
    if told == "off" or (told == "auto" and not launched(os.environ)):
        return
    address, count, index = (None, None, None) if told == "auto" else _parts(told)
    # Processes on CPUs speak to one another by gloo; elsewhere this has no effect.
    with contextlib.suppress(AttributeError, ValueError):
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(address, count, index)
    except Exception as error:  # noqa: BLE001 - the runtime raises what it likes
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"--distributed={told}: {reason}") from error
    if jax.process_index():
        files.follow()


def launched(environment: Any) -> str:
    """What has started several processes of this program; empty if nothing has."""
    for name, launcher in CLUSTERS.items():
        if environment.get(name, "1").isdecimal() and int(environment.get(name, "1")) > 1:
            return launcher
    if any("," in environment.get(name, "") for name in HOSTS):
        return "a TPU slice"
    return ""


def wait(name: str) -> None:
    """Waits until every process is here.

    Raises:
        TimeoutError: naming the place, and what the runtime says of who is missing.
    """
    if jax.process_count() == 1:
        return
    from orbax.checkpoint import multihost

    seconds = patience()
    try:
        multihost.sync_global_processes(name, timeout=seconds)
    except Exception as error:
        reason = " ".join(str(error).split())[:500]
        raise TimeoutError(
            f"process {jax.process_index()} of {jax.process_count()} waited {seconds} s at "
            f"{name!r}: {reason}"
        ) from error


def agree(value: Any) -> Any:
    """What process 0 says, for all: a JSON value."""
    if jax.process_count() == 1:
        return value
    from jax.experimental.multihost_utils import broadcast_one_to_all

    told = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(broadcast_one_to_all(np.int32(len(told))))
    text = np.zeros(size, np.uint8)
    text[: len(told)] = told[:size]
    return json.loads(np.asarray(broadcast_one_to_all(text), np.uint8).tobytes())


def patience() -> int:
    """Seconds that processes wait for one another; a day, or what the user says.

    Raises:
        ValueError: if ``DIFFREWARD_WAIT`` is no number of seconds.
    """
    told = os.environ.get(PATIENCE, str(DAY))
    if not told.isdecimal() or not int(told):
        raise ValueError(f"{PATIENCE} = {told!r} is no number of seconds")
    return int(told)


def _parts(told: str) -> tuple[str, int, int]:
    """Address, number of processes, and number of this one."""
    parts = told.split(",")
    if len(parts) == 3 and ":" in parts[0] and all(p.isdecimal() for p in parts[1:]):
        count, index = int(parts[1]), int(parts[2])
        if index < count:
            return parts[0], count, index
    raise ValueError(
        f"--distributed={told} is none of auto, off and ADDRESS:PORT,N,I with I below N"
    )
