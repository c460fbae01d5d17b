"""Strictness for every test: eight CPU devices, no silent promotion, printed keys."""

import gc
import os
import subprocess
from importlib.metadata import version

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling takes longer than computing here: no optimisations, loops of LLVM instead of
# MLIR's, one module per program; half the time, and child processes must do the same.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
# XLA ends the process at a flag that it does not know, as releases from 0.12 on this one.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
    + " --xla_cpu_parallel_codegen_split_count=1"
    + " --xla_cpu_use_fusion_emitters=false" * version("jaxlib").startswith("0.10.")
)
os.environ.setdefault("MUJOCO_GL", "disable")
# Nothing of a test is left in the user's cache, or found there.
os.environ["DIFFREWARD_CACHE"] = "off"

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """JAX keeps every program that it compiled, gigabytes over a session."""
    yield
    jax.clear_caches()
    gc.collect()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole experiments come first: one begun last would leave a core idle."""
    items.sort(key=lambda item: "experiments" not in item.path.parts)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """Failed children say why; skipped for want of PyTorch fails outside `make parity`."""
    error = call.excinfo and call.excinfo.value
    if isinstance(error, subprocess.CalledProcessError):
        error.add_note(f"stdout: {error.stdout}\nstderr: {error.stderr}")
    report = yield
    wanted = "No module named 'torch'" in str(report.longrepr)
    if report.skipped and wanted and item.get_closest_marker("parity") is None:
        report.outcome, report.longrepr = "failed", "needs the mark pytest.mark.parity"
    return report


@pytest.fixture
def key(request: pytest.FixtureRequest) -> jax.Array:
    """A fixed key; its seed is printed when the test fails."""
    seed = 20260101
    print(f"key seed {seed} for {request.node.name}")  # noqa: T201
    return jax.random.key(seed)
