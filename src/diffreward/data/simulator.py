"""MuJoCo, imported when something is simulated, or one line about why it cannot be."""

import importlib
from typing import Any


def load_mujoco(module: str = "mujoco") -> Any:
    """Imports MuJoCo or one of its modules.

    Raises:
        ValueError: if it is missing, or does not like its environment.
    """
    try:
        return importlib.import_module(module)
    # A value of MUJOCO_GL that is unknown, or whose library is missing, ends in any.
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        raise ValueError(
            f"the simulator MuJoCo cannot be imported ({error}); pip install "
            "'gymnasium[mujoco]', and unset MUJOCO_GL: nothing is rendered here"
        ) from error
