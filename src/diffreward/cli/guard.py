"""How a program begins and ends: one line for what its user can mend, never a traceback.

Shared by the commands and the experiments.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

from diffreward import text

FAILED, INTERRUPTED, CLOSED = 1, 130, 141
"""Exit statuses; those of Ctrl-C and of a reader that went away are the shell's."""


def guarded(run: Callable[[], Any]) -> int:
    """Runs a program; returns its exit status, and says in one line what went wrong.

    Faults of the program itself stay tracebacks.
    """
    try:
        try:
            run()
            if sys.stdout is not None:
                sys.stdout.flush()
            return 0
        except BrokenPipeError:
            raise
        except KeyboardInterrupt as error:
            text.say(f"interrupted; {error}".strip("; "), sys.stderr)
            return INTERRUPTED
        except Exception as error:
            said = expected(error)
            if said is None:
                raise
            text.complain(said)
            return FAILED
    except BrokenPipeError:
        # Whoever read this has seen enough. Python would complain on its way out.
        sink = os.open(os.devnull, os.O_WRONLY)
        for stream in filter(None, (sys.stdout, sys.stderr)):
            os.dup2(sink, stream.fileno())
        return CLOSED


def start_jax(cache: str = "") -> None:
    """Finds the devices, in the precision that models have.

    Args:
        cache: where compiled programs are kept; see :func:`.compiled.keep_programs`.

    Raises:
        ValueError: if the environment asks for devices that are not there, or the cache
            cannot be used.
    """
    import jax

    from diffreward.cli.compiled import keep_programs

    keep_programs(cache)

    if jax.config.read("jax_enable_x64"):
        text.say("note: JAX_ENABLE_X64 is set aside; models are float32", sys.stderr)
        jax.config.update("jax_enable_x64", False)
    try:
        jax.devices()
    except Exception as error:  # noqa: BLE001 - JAX raises what a missing driver does
        told = os.environ.get("JAX_PLATFORMS", "")
        raise ValueError(f"JAX_PLATFORMS={told} finds no device here: {error}") from error


def expected(error: Exception) -> Any:
    """What is said of an error that is none of the program's; None of a fault of ours."""
    if isinstance(error, ValueError | OSError):
        return error
    if isinstance(error, MemoryError):
        return (
            "there is not enough memory; use fewer or smaller samples, or a smaller batch"
        )
    if "jax" in sys.modules:
        from jax.errors import JaxRuntimeError

        if isinstance(error, JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
            return expected(MemoryError())
        from diffreward.report import StaleRunError
        from diffreward.train import Diverged

        if isinstance(error, Diverged | StaleRunError):
            return error
    return None
