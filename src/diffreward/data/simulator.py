"""MuJoCo, imported when something is simulated, or one line about why it cannot be."""

import contextlib
import importlib
import warnings
from collections.abc import Iterator
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


@contextlib.contextmanager
def quiet_models() -> Iterator[None]:
    """Leaves out what MuJoCo says of models that are not ours to change.

    Gymnasium's half cheetah uses a deprecated attribute, and MuJoCo says so on every
    load, on the terminal and in a file of the working directory. Anything else that it
    has to say while a model is loaded becomes a Python warning.
    """
    mujoco = load_mujoco()
    before = mujoco.get_mju_user_warning()
    said: list[str] = []
    mujoco.set_mju_user_warning(said.append)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)
    for text in said:
        if "deprecated" not in text:
            warnings.warn(text, RuntimeWarning, stacklevel=3)
