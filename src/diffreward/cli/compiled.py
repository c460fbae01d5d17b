"""Programs that JAX has compiled, kept from one run to the next."""

import hashlib
import os
import platform
import sys
from pathlib import Path
from typing import Any

import jaxlib
import numpy as np

from diffreward.files import user_path
from diffreward.text import say

SETTING = "DIFFREWARD_CACHE"
"""Variable of the environment with a folder, or ``off``."""
OFF = "off"
LARGEST = 2 * 2**30
"""Bytes kept; what was used longest ago goes first."""


def keep_programs(place: str = "") -> None:
    """Lets JAX look for what it compiled before, and keep what it compiles now.

    The first run that makes the folder says so in one line. Where JAX's own variable
    ``JAX_COMPILATION_CACHE_DIR`` is set, it is obeyed instead.

    Args:
        place: a folder, or ``off``; by default what ``DIFFREWARD_CACHE`` says, else one of
            this machine's kind in the user's cache.

    Raises:
        ValueError: if a folder that was named cannot be made.
    """
    named = place or os.environ.get(SETTING, "")
    if named == OFF or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = (user_path(named) if named else user_cache()) / machine()
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        usable = os.access(folder, os.W_OK)
        reason = "it cannot be written to"
    except OSError as error:
        usable, reason = False, error.strerror
    if not usable:
        if named:
            raise ValueError(f"--cache {named} cannot be used: {reason}")
        return
    import jax

    values: dict[str, Any] = {
        "jax_compilation_cache_dir": str(folder),
        "jax_compilation_cache_max_size": LARGEST,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": 0,
    }
    for name, value in values.items():
        jax.config.update(name, value)
    if new:
        say(
            f"note: compiled programs are kept in {folder}; --cache off keeps none",
            sys.stderr,
        )


def user_cache() -> Path:
    """Where programs keep what they can make again."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "diffreward"


def machine() -> str:
    """A name for machines that run the same programs: releases, and kinds of processor."""
    config: Any = np.show_config(mode="dicts")
    features = sorted(config.get("SIMD Extensions", {}).get("found", ()))
    kind = (jaxlib.__version__, platform.system(), platform.machine(), features)
    return hashlib.sha256(repr(kind).encode()).hexdigest()[:16]
